//! Units and pods from `/proc/<pid>/cgroup` (cgroups(7)).
//!
//! Who has a part of the tree delegated to it may make groups of any name below it. So names count from the root down only: the
//! first unit below the slices, and a pod only where the kubelet's own tree stands at the root.

use std::collections::BTreeSet;

/// A pod, and which of its containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) container: Option<String>,
}

/// Kinds of units a process can run in.
const UNITS: [&str; 2] = [".service", ".scope"];

/// The system's unit that the process belongs to.
pub(super) fn systemd_unit(text: &str) -> Option<&str> {
    // With version 1 systemd keeps a tree of its own by name; with version 2 there is only one.
    let path = paths(text).find(|(controllers, _)| *controllers == "name=systemd");
    let path = path.or_else(|| paths(text).find(|(controllers, _)| controllers.is_empty()))?.1;
    let unit = parts(path).find(|part| !part.ends_with(".slice"))?;
    UNITS.iter().any(|kind| unit.strip_suffix(kind).is_some_and(|name| !name.is_empty())).then_some(unit)
}

/// The pod that the process runs in, if any.
///
/// # Errors
/// The trees of version 1 name different pods, so none of them can be believed.
pub(super) fn pod(text: &str) -> Result<Option<Pod>, String> {
    let found: BTreeSet<Pod> = paths(text).filter_map(|(_, path)| pod_of(path)).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err("its control groups name different pods".to_owned()),
        (one, _) => Ok(one),
    }
}

/// Controllers and path of each line.
fn paths(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn pod_of(path: &str) -> Option<Pod> {
    let mut parts = parts(path).peekable();
    // The kubelet may have a root of its own above (`--cgroup-root`, as kind and k3s set it).
    while matches!(parts.peek(), Some(&("kubelet" | "kubelet.slice"))) {
        parts.next();
    }
    let root = parts.next()?;
    if !matches!(root, "kubepods" | "kubepods.slice" | "kubelet-kubepods.slice") {
        return None;
    }
    // Guaranteed pods stand directly below, the others below their class.
    let mut next = parts.next()?;
    if ["besteffort", "burstable"].iter().any(|class| next.strip_suffix(".slice").unwrap_or(next).ends_with(class)) {
        next = parts.next()?;
    }
    let uid = pod_uid(next)?;
    Some(Pod { uid, container: parts.next().and_then(container_id) })
}

/// `pod<uid>`, or in systemd's notation `kubepods-burstable-pod<uid with _ for ->.slice`.
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => part.strip_prefix("pod")?.to_owned(),
    };
    let plain = (1..=64).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    plain.then_some(uid)
}

/// `<id>`, or in systemd's notation `cri-containerd-<id>.scope`.
fn container_id(part: &str) -> Option<String> {
    let id = match part.strip_suffix(".scope") {
        Some(scope) => scope.rsplit_once('-').map_or(scope, |(_, id)| id),
        None => part,
    };
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6c9ba5f6-43dc-4a5b-a3f5-0c4b1d6e6f3a";

    fn container() -> String {
        "0123456789abcdef".repeat(4)
    }

    fn pod_in(path: &str) -> Option<Pod> {
        pod(&format!("0::{path}\n")).unwrap()
    }

    #[test]
    fn pods_in_every_form_of_the_kubelet() {
        let (id, low) = (container(), UID.replace('-', "_"));
        for path in [
            format!("/kubepods/pod{UID}/{id}"),
            format!("/kubepods/besteffort/pod{UID}/{id}"),
            format!("/kubepods.slice/kubepods-pod{low}.slice/cri-containerd-{id}.scope"),
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{low}.slice/crio-{id}.scope"),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{low}.slice/cri-containerd-{id}.scope"
            ),
            format!("/kubelet/kubepods/burstable/pod{UID}/{id}"),
            format!("/kubepods/pod{UID}/{id}/below/of/its/own"),
        ] {
            let expected = Some(Pod { uid: UID.to_owned(), container: Some(id.clone()) });
            assert_eq!(pod_in(&path), expected, "{path}");
        }
        let without = Some(Pod { uid: UID.to_owned(), container: None });
        assert_eq!(pod_in(&format!("/kubepods/pod{UID}")), without);
        assert_eq!(pod_in(&format!("/kubepods/pod{UID}/short")), without);
    }

    /// Whoever owns a delegated group can call what is below it as it likes.
    #[test]
    fn a_pod_below_somebody_elses_group_is_none() {
        let (id, low) = (container(), UID.replace('-', "_"));
        for path in [
            format!("/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}/{id}"),
            format!("/system.slice/app.service/kubepods.slice/kubepods-pod{low}.slice/cri-containerd-{id}.scope"),
            format!("/../../kubepods/pod{UID}/{id}"),
            format!("/kubepods/other/pod{UID}/{id}"),
            "/kubepods/pod../x".to_owned(),
            "/kubepods/pod".to_owned(),
            "/".to_owned(),
        ] {
            assert_eq!(pod_in(&path), None, "{path}");
        }
    }

    #[test]
    fn version_one_must_agree_with_itself() {
        let one = format!("12:pids:/kubepods/pod{UID}/{0}\n1:name=systemd:/kubepods/pod{UID}/{0}\n0::/\n", container());
        assert_eq!(pod(&one).unwrap().unwrap().uid, UID);
        let two = one.replace("pids:/kubepods/pod6", "pids:/kubepods/pod7");
        assert!(pod(&two).unwrap_err().contains("different pods"));
    }

    #[test]
    fn the_unit_is_the_first_below_the_slices() {
        for (text, unit) in [
            ("0::/system.slice/app.service\n", Some("app.service")),
            ("0::/system.slice/app.service/evil.service\n", Some("app.service")),
            ("0::/system.slice/system-web.slice/web@1.service\n", Some("web@1.service")),
            ("0::/user.slice/user-7.slice/user@7.service/app.slice/db.service\n", Some("user@7.service")),
            ("0::/user.slice/user-7.slice/session-3.scope\n", Some("session-3.scope")),
            ("3:cpu:/x\n1:name=systemd:/system.slice/app.service\n0::/system.slice/b.service\n", Some("app.service")),
            ("0::/anything/app.service\n", None),
            ("0::/.service\n", None),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(systemd_unit(text), unit, "{text}");
        }
    }
}
