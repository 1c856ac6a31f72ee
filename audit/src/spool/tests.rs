use std::fs;
use std::path::Path;
use std::sync::Arc;

use palisade_wire::audit::Verdict;
use prometheus_client::metrics::counter::Counter;

use super::recover::Opened;
use super::*;
use crate::clock::NanoClock;

const SEGMENT: u64 = 8 * 1024;

fn start(dir: &Path, now: u64) -> Opened {
    open(dir, "shop/cart", SEGMENT, now, Gauge::default()).unwrap()
}

fn reader(opened: &Opened) -> (SpoolReader, Counter) {
    let lost = Counter::default();
    (SpoolReader::new(Arc::clone(&opened.spool), NanoClock::new(|| 77), lost.clone()), lost)
}

fn event(epoch: u64, sequence: u64) -> Event {
    Event {
        enforcer: "shop/cart".into(),
        epoch,
        sequence,
        time_ns: sequence,
        kind: Kind::Decision.into(),
        verdict: Verdict::Allow.into(),
        policy: "ns[shop]-policy[only-web]-rule[0]".into(),
        ..Event::default()
    }
}

/// Writes events `from..=to`, ten a group.
fn write(opened: &mut Opened, from: u64, to: u64) {
    let mut sequence = from;
    while sequence <= to {
        let mut frames = Frames::default();
        for _ in 0..10 {
            if sequence <= to {
                frames.push(&event(opened.epoch, sequence));
                sequence += 1;
            }
        }
        opened.writer.commit(&frames, u64::MAX).unwrap();
    }
}

fn read_all(reader: &mut SpoolReader) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let chunk = reader.read();
        if chunk.is_empty() {
            return events;
        }
        events.extend(chunk.events);
    }
}

fn numbers(events: &[Event]) -> Vec<(u64, u64, Option<u64>)> {
    events.iter().map(|event| (event.epoch, event.sequence, event.gap.as_ref().map(|gap| gap.to_sequence))).collect()
}

fn spool_files(dir: &Path) -> usize {
    files::segments(dir).unwrap().len()
}

#[test]
fn a_segment_cut_at_any_byte_gives_its_whole_events_and_a_crash() {
    let source = tempfile::tempdir().unwrap();
    let mut opened = start(source.path(), 100);
    write(&mut opened, 1, 4);
    drop(opened);
    let name = SegmentId { epoch: 100, first: 1 };
    let whole = fs::read(name.path(source.path())).unwrap();
    let frame = (whole.len() - HEADER as usize) / 4;
    for cut in 0..=whole.len() {
        let dir = tempfile::tempdir().unwrap();
        files::write_state(dir.path(), files::EpochState { epoch: 100, closed: false }).unwrap();
        fs::write(name.path(dir.path()), &whole[..cut]).unwrap();
        let opened = start(dir.path(), 50);
        assert_eq!(opened.epoch, 101, "greater than every epoch seen, whatever the clock says");
        let kept = (cut.saturating_sub(HEADER as usize) / frame) as u64;
        let mut expected: Vec<_> = (1..=kept).map(|sequence| (100, sequence, None)).collect();
        expected.push((100, kept + 1, Some(0)));
        assert_eq!(numbers(&read_all(&mut reader(&opened).0)), expected, "cut at {cut}");
    }
}

#[test]
fn a_crash_is_recorded_once_however_often_the_next_starts_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = start(dir.path(), 100);
    write(&mut opened, 1, 3);
    drop(opened);
    // The second start dies after the repair and before its own state is written.
    drop(start(dir.path(), 200));
    files::write_state(dir.path(), files::EpochState { epoch: 100, closed: false }).unwrap();
    fs::remove_file(SegmentId { epoch: 200, first: 1 }.path(dir.path())).unwrap();
    let opened = start(dir.path(), 300);
    let events = read_all(&mut reader(&opened).0);
    assert_eq!(numbers(&events), [(100, 1, None), (100, 2, None), (100, 3, None), (100, 4, Some(0))]);
    assert_eq!(events[3].gap.as_ref().unwrap().cause, "crash");
}

#[test]
fn an_orderly_end_leaves_no_gap_and_at_last_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = start(dir.path(), 100);
    write(&mut opened, 1, 500);
    assert!(spool_files(dir.path()) > 3, "several segments");
    let (mut reader, _) = reader(&opened);
    opened.writer.close().unwrap();
    let mut chunk = reader.read();
    assert_eq!((chunk.events.len(), chunk.closed), (500, true));
    reader.acknowledge(Position { epoch: 100, sequence: 500 });
    assert_eq!(spool_files(dir.path()), 1, "the last one stays until the end is acknowledged too");
    reader.rewind();
    chunk = reader.read();
    assert_eq!((chunk.events.len(), chunk.closed), (0, true));
    reader.acknowledge(Position { epoch: 100, sequence: u64::MAX });
    assert_eq!(spool_files(dir.path()), 0);
    drop((opened.spool, reader));
    let next = start(dir.path(), 100);
    assert_eq!(next.epoch, 101);
    assert_eq!(read_all(&mut self::reader(&next).0), []);
}

#[test]
fn what_is_not_acknowledged_is_read_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = start(dir.path(), 100);
    write(&mut opened, 1, 500);
    let (mut first, _) = reader(&opened);
    assert_eq!(read_all(&mut first).len(), 500);
    let before = spool_files(dir.path());
    first.acknowledge(Position { epoch: 100, sequence: 300 });
    assert!(spool_files(dir.path()) < before, "acknowledged segments are gone");
    first.rewind();
    assert_eq!(numbers(&read_all(&mut first)), (301..=500).map(|n| (100, n, None)).collect::<Vec<_>>());
    opened.writer.close().unwrap();
    drop((opened.spool, first));
    let next = start(dir.path(), 200);
    let again = numbers(&read_all(&mut reader(&next).0));
    assert!(again.first().unwrap().1 <= 301, "nothing between is missing: {again:?}");
    assert_eq!(again.last(), Some(&(100, 500, None)));
}

#[test]
fn damage_and_deletion_become_gaps_with_exact_counts() {
    for delete in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = start(dir.path(), 100);
        write(&mut opened, 1, 500);
        let second = files::segments(dir.path()).unwrap()[1].0;
        let third = files::segments(dir.path()).unwrap()[2].0;
        if delete {
            fs::remove_file(second.path(dir.path())).unwrap();
        } else {
            let mut bytes = fs::read(second.path(dir.path())).unwrap();
            bytes[HEADER as usize + 20] ^= 1;
            fs::write(second.path(dir.path()), bytes).unwrap();
        }
        let (mut reader, lost) = reader(&opened);
        let events = read_all(&mut reader);
        let gap = events.iter().find(|event| event.gap.is_some()).unwrap();
        assert_eq!((gap.sequence, gap.gap.as_ref().unwrap().to_sequence), (second.first, third.first - 1));
        let count = third.first - second.first;
        assert_eq!(events.len() as u64, 500 - count + 1);
        assert_eq!(lost.get(), count);
        reader.rewind();
        read_all(&mut reader);
        assert_eq!(lost.get(), count, "counted once, however often it is read");
    }
}

#[test]
fn a_deleted_file_under_the_writer_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = start(dir.path(), 100);
    write(&mut opened, 1, 3);
    fs::remove_file(SegmentId { epoch: 100, first: 1 }.path(dir.path())).unwrap();
    write(&mut opened, 4, 6);
    assert_eq!(
        numbers(&read_all(&mut reader(&opened).0)),
        [(100, 1, Some(3)), (100, 4, None), (100, 5, None), (100, 6, None)]
    );
}

#[test]
fn the_quota_holds_until_a_trim() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = start(dir.path(), 100);
    write(&mut opened, 1, 10);
    let mut frames = Frames::default();
    frames.push(&event(100, 11));
    let quota = opened.spool.total();
    assert!(matches!(opened.writer.commit(&frames, quota), Err(WriteError::Full)));
    assert!(matches!(opened.writer.commit(&frames, quota), Err(WriteError::Full)));
    let (mut reader, _) = reader(&opened);
    assert_eq!(read_all(&mut reader).len(), 10);
    reader.acknowledge(Position { epoch: 100, sequence: 10 });
    opened.writer.commit(&frames, quota).unwrap();
    assert_eq!(numbers(&read_all(&mut reader)), [(100, 11, None)]);
    let mut large = Frames::default();
    (12..200).for_each(|sequence| large.push(&event(100, sequence)));
    reader.acknowledge(Position { epoch: 100, sequence: 11 });
    assert!(matches!(opened.writer.commit(&large, 100), Err(WriteError::Full)));
    read_all(&mut reader);
    opened.writer.commit(&large, 100).unwrap();
}

#[test]
fn a_directory_is_one_process_s_and_errors_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let _held = start(dir.path(), 100);
    let error = open(dir.path(), "a/b", SEGMENT, 1, Gauge::default()).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "the audit spool `{}` is in use by another process; stop it or choose another directory",
            dir.path().display()
        )
    );
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("spool");
    let error = open(&below, "a/b", SEGMENT, 1, Gauge::default()).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot write the audit spool `{}`; make it writable for this user or choose another directory",
            below.display()
        )
    );
}

#[test]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("a/b");
    let _opened = start(&spool, 100);
    assert_eq!(fs::metadata(&spool).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&spool).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}
