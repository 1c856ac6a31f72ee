//! Reading files and directories.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{error::Error, fs, os::unix::fs::symlink, path::PathBuf};

use palisade_policies::{MAX_TEXT_BYTES, ReadError, read_each, read_paths};

fn names(directory: &tempfile::TempDir, paths: &[PathBuf]) -> Vec<String> {
    let root = format!("{}/", directory.path().display());
    let texts = read_paths(paths).unwrap();
    texts.iter().map(|text| text.file.strip_prefix(&root).unwrap().to_owned()).collect()
}

#[test]
fn directories_are_read_sorted_without_hidden_names() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for folder in ["b", "..2026_01", "empty", "b/.hidden"] {
        fs::create_dir(at(folder)).unwrap();
    }
    for file in ["z.yml", "a.yaml", "b/c.yaml", "notes.txt", ".x.yaml", "..2026_01/mounted.yaml", "b/.hidden/y.yaml"] {
        fs::write(at(file), "# x\n").unwrap();
    }
    symlink("..2026_01/mounted.yaml", at("mounted.yaml")).unwrap();
    symlink("..2026_01", at("..data")).unwrap();
    symlink(".", at("loop")).unwrap();
    symlink("b", at("folder.yaml")).unwrap();
    assert_eq!(names(&directory, &[directory.path().to_owned()]), ["a.yaml", "b/c.yaml", "mounted.yaml", "z.yml"]);
    assert_eq!(
        names(&directory, &[at("notes.txt"), at("b")]),
        ["notes.txt", "b/c.yaml"],
        "a named file is read as it is"
    );
    assert_eq!(names(&directory, &[at("empty")]), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let missing = read_paths(&[at("missing.yaml")]).unwrap_err();
    assert_eq!(missing.to_string(), format!("cannot read `{}`", at("missing.yaml").display()));
    assert!(missing.source().is_some());
    symlink("nowhere", at("dangling.yaml")).unwrap();
    assert!(matches!(read_paths(&[directory.path().to_owned()]), Err(ReadError::Io { .. })));
    fs::write(at("latin.yaml"), b"a: 1\nb: \xe4\n").unwrap();
    let latin = read_paths(&[at("latin.yaml")]).unwrap_err();
    assert!(latin.to_string().ends_with("latin.yaml` is not UTF-8: byte 8, line 2"), "{latin}");
    fs::File::create(at("large.yaml")).unwrap().set_len(MAX_TEXT_BYTES as u64 + 1).unwrap();
    assert!(matches!(read_paths(&[at("large.yaml")]), Err(ReadError::TooLarge { .. })));
}

/// A pipe that nobody writes to never ends; a device may not, either.
#[test]
fn what_is_no_file_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [PathBuf::from("/dev/null"), pipe] {
        let error = read_each(std::slice::from_ref(&path)).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` is neither a file nor a directory", path.display()));
    }
    assert!(read_each(&[directory.path().to_owned()]).unwrap().texts.is_empty(), "in a directory it is passed over");
}

#[test]
fn a_pipe_that_the_shell_has_opened_is_read() {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"kind: X\n").unwrap();
    drop(writer);
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    assert_eq!(read_each(&[path]).unwrap().texts.len(), 1);
}

#[test]
fn an_unreadable_file_is_a_finding_and_the_others_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("a.yaml"), "# x\n").unwrap();
    fs::write(at("b.yaml"), b"a: 1\n\xc3\xa4: \xe4\n").unwrap();
    fs::File::create(at("c.yaml")).unwrap().set_len(MAX_TEXT_BYTES as u64 + 1).unwrap();
    fs::write(at("d.yaml"), "# y\n").unwrap();
    let read = read_each(&[directory.path().to_owned()]).unwrap();
    let texts: Vec<&str> = read.texts.iter().map(|text| &*text.text).collect();
    assert_eq!(texts, ["# x\n", "# y\n"]);
    let found: Vec<_> = read.refused.iter().map(|found| (found.code, found.line, found.column)).collect();
    assert_eq!(found, [("PAL0012", 2, 4), ("PAL0002", 1, 1)]);
    assert!(read.refused[0].file.ends_with("b.yaml"), "{:?}", read.refused);
    assert!(matches!(read_each(&[at("missing.yaml")]), Err(ReadError::Io { .. })));
}
