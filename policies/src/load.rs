//! From texts to checked resources. The loader never stops at the first fault: each document is read on its own and
//! everything wrong with it is reported at once, because an author corrects a file in one go.

mod authorization;
pub(crate) mod cursor;
pub(crate) mod duration;
mod header;
mod item;
mod jwks;
pub(crate) mod metadata;
pub(crate) mod names;
mod peer;
mod registration;
mod request;
mod rules;
mod selector;
mod service;
pub(crate) mod values;
mod weight;
mod workload;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::{
    AuthorizationPolicy, Document, Explanation, Loaded, Meta, Origin, PeerAuthentication, RegistrationEntry,
    RequestAuthentication, Resources, ServiceEntry, SourceText, WorkloadEntry,
    catalogue::{reading, shape},
    yaml::{self, Chunk, Node, Pos},
};
use cursor::{Cx, Path};
use header::Header;

/// The largest text that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// The largest sum of all texts of one load, in bytes.
pub const MAX_TOTAL_BYTES: usize = 128 << 20;

/// How many values all documents of one load may have together, those that aliases copy included: what a load costs in
/// memory grows with them, by 40 to 100 bytes each. A text in a list counts as four values, and each slash of a path
/// template as three more: an entry of an index costs more than a value.
pub const MAX_TOTAL_VALUES: usize = 12_500_000;

/// How many documents one load reads.
pub const MAX_DOCUMENTS: usize = 200_000;

/// Reads texts into checked resources. Never fails as a whole: what is wrong is in
/// [`Loaded::diagnostics`], and a document with an error is left out, whole.
///
/// `default_namespace` is the namespace of documents that name none. Errors and warnings are bounded in number, as
/// are the size of the texts, the number of documents, their depth and what aliases expand to.
#[must_use]
pub fn load(texts: &[SourceText], default_namespace: &str) -> Loaded {
    let mut loader = Loader {
        cx: Cx::new(Arc::from("")),
        loaded: Loaded::default(),
        seen: HashMap::new(),
        default_namespace,
        bytes: 0,
        documents: 0,
        values: 0,
        cut: None,
        unread: 0,
    };
    for text in texts {
        loader.text(text);
    }
    loader.loaded.diagnostics = loader.cx.findings;
    loader.loaded
}

struct Loader<'a> {
    cx: Cx,
    loaded: Loaded,
    /// Where each kind, namespace and name was accepted first.
    seen: HashMap<(&'static str, String, String), Origin>,
    default_namespace: &'a str,
    bytes: usize,
    documents: usize,
    values: usize,
    /// Why no more of this text is read.
    cut: Option<Cut>,
    /// How many of its documents are not.
    unread: usize,
}

/// A bound on all texts together, the place at which it was passed, and a message.
type Cut = (&'static Explanation, Pos, String);

/// The text of a document as it is passed on.
struct Source<'a> {
    first_line: u32,
    text: &'a str,
    /// Whether it is an item of a List.
    item: bool,
}

impl Loader<'_> {
    fn text(&mut self, text: &SourceText) {
        self.cx.file = Arc::clone(&text.file);
        let before = self.cx.findings.len();
        self.bytes = self.bytes.saturating_add(text.text.len());
        let message = if text.text.len() > MAX_TEXT_BYTES {
            Some(format!("{} bytes, at most {MAX_TEXT_BYTES} are read", text.text.len()))
        } else if self.bytes > MAX_TOTAL_BYTES {
            Some(format!("all texts together have more than {MAX_TOTAL_BYTES} bytes"))
        } else {
            None
        };
        if let Some(message) = message {
            let pos = Pos { line: text.first_line, column: 1, index: 0 };
            self.refuse(&reading::TOO_LARGE, pos, message);
            return;
        }
        for chunk in yaml::split(&text.text) {
            self.chunk(text, chunk);
        }
        self.say_cut();
        let (_, new) = self.cx.findings.split_at_mut(before);
        new.sort_by_key(|finding| (finding.line, finding.column));
    }

    fn chunk(&mut self, text: &SourceText, chunk: Chunk<'_>) {
        let first_line = text.first_line.saturating_add(chunk.line).saturating_sub(1);
        if self.enough(first_line) || self.enough_values(first_line) {
            self.unread += usize::from(chunk.has_content());
            return;
        }
        match yaml::parse(chunk, text.first_line) {
            Ok(Some(tree)) if tree.root.is_null() => {}
            Ok(Some(tree)) => {
                self.values = self.values.saturating_add(tree.values).saturating_add(weight::beyond(&tree.root));
                if self.enough_values(tree.root.pos.line) {
                    self.unread += 1;
                    return;
                }
                let source = Source { first_line, text: chunk.text, item: false };
                self.document(&tree.root, tree.aliases, &source);
            }
            Ok(None) => {}
            Err(fault) => self.refuse(fault.what, fault.pos, fault.message),
        }
    }

    /// Counts one more document, at this line; says whether that is one too many.
    fn enough(&mut self, line: u32) -> bool {
        self.documents += 1;
        let enough = self.documents > MAX_DOCUMENTS;
        if enough && self.cut.is_none() {
            let pos = Pos { line, column: 1, index: 0 };
            self.cut = Some((&reading::TOO_MANY_DOCUMENTS, pos, format!("more than {MAX_DOCUMENTS} documents")));
        }
        enough
    }

    /// Says whether there are too many values up to this line.
    fn enough_values(&mut self, line: u32) -> bool {
        let enough = self.values > MAX_TOTAL_VALUES;
        if enough && self.cut.is_none() {
            let pos = Pos { line, column: 1, index: 0 };
            let message = format!("more than {MAX_TOTAL_VALUES} values in all documents together");
            self.cut = Some((&reading::TOO_MANY_VALUES_IN_ALL, pos, message));
        }
        enough
    }

    /// Says once for a text why it was not read to its end, and counts each document that was not read as refused.
    fn say_cut(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        let Some((what, pos, message)) = self.cut.take() else { return };
        self.loaded.refused += unread;
        let s = if unread == 1 { "" } else { "s" };
        self.cx.report(what, pos, &Path::Root, format!("{message}: {unread} document{s} from here on not read"));
    }

    fn refuse(&mut self, what: &'static Explanation, pos: Pos, message: String) {
        self.cx.report(what, pos, &Path::Root, message);
        self.loaded.refused += 1;
    }

    /// Reads one resource: counts it as accepted, skipped or refused.
    fn document(&mut self, root: &Node, aliases: bool, source: &Source<'_>) {
        match header::read(&mut self.cx, root) {
            Header::Ours(kind) => self.loaded.refused += usize::from(!self.resource(kind, root, source)),
            Header::List if source.item => {
                self.refuse(&shape::WRONG_TYPE, root.pos, "a List inside a List".to_owned());
            }
            Header::List if aliases => {
                self.refuse(&reading::LIST_ALIAS, root.pos, "an alias in a List".to_owned());
            }
            Header::List => self.list(root, source),
            Header::Skipped => self.loaded.skipped += 1,
            Header::Refused => self.loaded.refused += 1,
        }
    }

    /// Reads the items of a List, each as a document of its own at its own place.
    fn list(&mut self, root: &Node, source: &Source<'_>) {
        let errors = self.cx.errors;
        let object = self.cx.object(root, &Path::Root, &["apiVersion", "kind", "metadata", "items"]);
        let Some(items) = object.and_then(|object| object.get("items")) else {
            self.cx.missing(root.pos, &Path::Root, "items");
            self.loaded.refused += 1;
            return;
        };
        let items = self.cx.list(items, &Path::Root.key("items"), MAX_DOCUMENTS).unwrap_or_default();
        self.loaded.refused += usize::from(self.cx.errors > errors);
        let mut cutter = item::Cutter::new(source.text);
        for node in items {
            if self.enough(node.pos.line) {
                self.unread += 1;
                continue;
            }
            let text = cutter.cut(node);
            self.document(node, false, &Source { first_line: node.pos.line, text: &text, item: true });
        }
    }

    /// Reads one resource of ours; whether it was accepted.
    fn resource(&mut self, kind: &'static str, root: &Node, source: &Source<'_>) -> bool {
        let errors = self.cx.errors;
        let cx = &mut self.cx;
        let _ = cx.object(root, &Path::Root, &["apiVersion", "kind", "metadata", "spec", "status"]);
        let meta = metadata::read(cx, root, self.default_namespace);
        if kind != header::AUTHORIZATION_POLICY {
            authorization::refuse_dry_run(cx, root, kind);
        }
        let resource = match kind {
            header::AUTHORIZATION_POLICY => authorization::read(cx, root, meta).map(Resource::Authorization),
            header::REQUEST_AUTHENTICATION => request::read(cx, root, meta).map(Resource::Request),
            header::PEER_AUTHENTICATION => peer::read(cx, root, meta).map(Resource::Peer),
            header::REGISTRATION_ENTRY => registration::read(cx, root, meta).map(Resource::Registration),
            header::WORKLOAD_ENTRY => workload::read(cx, root, meta).map(Resource::Workload),
            _ => service::read(cx, root, meta).map(Resource::Service),
        };
        match resource {
            Some(resource) if self.cx.errors == errors => self.accept(kind, root, resource, source),
            _ => false,
        }
    }

    fn accept(&mut self, kind: &'static str, root: &Node, resource: Resource, source: &Source<'_>) -> bool {
        let meta = resource.meta();
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
        match self.seen.entry((kind, namespace.clone(), name.clone())) {
            Entry::Occupied(first) => {
                let message = format!("{kind} {namespace}/{name} is already defined at {}", first.get());
                let path = Path::Root.key("metadata");
                let pos =
                    root.peek("metadata").and_then(|metadata| metadata.peek("name")).map_or(root.pos, |node| node.pos);
                self.cx.report(&shape::DUPLICATE_RESOURCE, pos, &path.key("name"), message);
                return false;
            }
            Entry::Vacant(vacant) => vacant.insert(meta.origin.clone()),
        };
        let text =
            SourceText { file: Arc::clone(&self.cx.file), first_line: source.first_line, text: Arc::from(source.text) };
        self.loaded.documents.push(Document { kind, namespace, name, text });
        resource.add_to(&mut self.loaded.resources);
        true
    }
}

/// A resource that has passed every check.
enum Resource {
    Authorization(AuthorizationPolicy),
    Request(RequestAuthentication),
    Peer(PeerAuthentication),
    Workload(WorkloadEntry),
    Service(ServiceEntry),
    Registration(RegistrationEntry),
}

impl Resource {
    fn meta(&self) -> &Meta {
        match self {
            Self::Authorization(policy) => &policy.meta,
            Self::Request(policy) => &policy.meta,
            Self::Peer(policy) => &policy.meta,
            Self::Workload(entry) => &entry.meta,
            Self::Service(entry) => &entry.meta,
            Self::Registration(entry) => &entry.meta,
        }
    }

    fn add_to(self, resources: &mut Resources) {
        match self {
            Self::Authorization(policy) => resources.authorization_policies.push(Arc::new(policy)),
            Self::Request(policy) => resources.request_authentications.push(Arc::new(policy)),
            Self::Peer(policy) => resources.peer_authentications.push(Arc::new(policy)),
            Self::Workload(entry) => resources.workload_entries.push(Arc::new(entry)),
            Self::Service(entry) => resources.service_entries.push(Arc::new(entry)),
            Self::Registration(entry) => resources.registration_entries.push(Arc::new(entry)),
        }
    }
}
