//! Bridges between accounts: every import that its exporter allows, ready to be walked.

use std::borrow::Cow;

use hw_kit::{AccountId, Span};
use hw_subject::{Filter, is_literal, is_subset, is_valid_filter, overlaps, tokens};

use crate::rewrite::{self, Rewrite};
use crate::sharing::{
    ExportSpec, ImportError, ImportSpec, RESPONSE_THRESHOLD, ResponseType, RewriteError, Shared,
};
use crate::spec::{AccountSpec, SpecError};

/// Messages that are published in one account and go on into another.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Where they are published: by the exporter of messages, by the importer of a service.
    pub from: AccountId,
    /// Which ones.
    pub filter: Filter,
    /// Where they go on.
    pub to: AccountId,
    /// What for.
    pub kind: BridgeKind,
    rewrite: Rewrite,
}

/// What a bridge is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BridgeKind {
    /// Messages to hear.
    Stream,
    /// Requests, with a way back for the answers.
    Service {
        /// Whether the service is told who asks.
        share: bool,
        /// How many messages answer.
        response: ResponseType,
        /// How long they are waited for.
        threshold: Span,
    },
}

impl Bridge {
    /// Whether it is for requests.
    pub fn is_service(&self) -> bool {
        matches!(self.kind, BridgeKind::Service { .. })
    }

    /// The subject behind the bridge; `None` if this one does not go over it.
    pub fn subject<'a>(&'a self, subject: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        self.rewrite.apply(subject)
    }
}

/// All bridges between these accounts. `wrong` hears of each import or export that makes no sense: it ends the search
/// with an error, or passes over it.
pub(crate) fn bridges(
    accounts: &[AccountSpec],
    number: impl Fn(&str) -> Option<AccountId>,
    mut wrong: impl FnMut(SpecError) -> Result<(), SpecError>,
) -> Result<Vec<Bridge>, SpecError> {
    for export in accounts.iter().flat_map(|account| &account.exports) {
        check_export(accounts, export).or_else(&mut wrong)?;
    }
    let mut builder = Builder { accounts, imports: vec![] };
    let mut bridges = vec![];
    for shared in [Shared::Stream, Shared::Service] {
        for account in accounts {
            for import in account.imports.iter().filter(|import| import.shared == shared) {
                let Some(exporter) = accounts.iter().find(|exporter| exporter.name == import.account) else {
                    let account = import.account.clone();
                    wrong(SpecError::AccountNotDefined { account, shared, what: "import" })?;
                    continue;
                };
                let refused = |reason| {
                    let subject = import.subject.clone();
                    SpecError::Import { shared, subject, reason: Box::new(reason) }
                };
                let built = match shared {
                    Shared::Stream => builder.stream(account, exporter, import),
                    Shared::Service => builder.service(account, exporter, import),
                };
                let mut bridge = match built.map_err(refused) {
                    Ok(bridge) => bridge,
                    Err(error) => {
                        wrong(error)?;
                        continue;
                    }
                };
                let ends = number(&account.name).zip(number(&exporter.name));
                let (here, there) = ends.expect("invariant: configured accounts have numbers");
                (bridge.from, bridge.to) = match shared {
                    Shared::Stream => (there, here),
                    Shared::Service => (here, there),
                };
                bridges.push(bridge);
            }
        }
    }
    Ok(bridges)
}

fn check_export(accounts: &[AccountSpec], export: &ExportSpec) -> Result<(), SpecError> {
    let shared = export.shared;
    for name in export.accounts.iter().flatten() {
        if !accounts.iter().any(|account| account.name == *name) {
            return Err(SpecError::AccountNotDefined { account: name.clone(), shared, what: "export" });
        }
    }
    let position = export.account_token_position;
    let subject = export.subject.as_bytes();
    let named = position == 0 || tokens(subject).nth(position - 1) == Some(b"*");
    match named && is_valid_filter(subject) {
        true => Ok(()),
        false => Err(SpecError::Export { shared, subject: export.subject.clone() }),
    }
}

/// An import that was let in: who has it, from whom, the subject there and here.
struct Known<'a> {
    importer: &'a str,
    exporter: &'a str,
    shared: Shared,
    theirs: String,
    ours: String,
}

struct Builder<'a> {
    accounts: &'a [AccountSpec],
    imports: Vec<Known<'a>>,
}

impl<'a> Builder<'a> {
    fn stream(
        &mut self,
        importer: &'a AccountSpec,
        exporter: &'a AccountSpec,
        import: &ImportSpec,
    ) -> Result<Bridge, ImportError> {
        let theirs = import.subject.as_str();
        authorized(importer, exporter, import)?;
        let ours = match (&import.prefix, &import.to) {
            (Some(prefix), _) if !is_literal(prefix.as_bytes()) => return Err(ImportError::BadPrefix),
            (Some(prefix), _) => format!("{}.{theirs}", prefix.strip_suffix('.').unwrap_or(prefix)),
            (None, Some(to)) => to.clone(),
            (None, None) => theirs.to_owned(),
        };
        for subject in [ours.as_str(), theirs] {
            self.stream_circle(&exporter.name, subject, &mut vec![importer.name.clone()])?;
        }
        let rewrite =
            Rewrite::forwards(theirs, &ours).map_err(|why| unmappable(import, theirs, &ours, why))?;
        let same = |known: &Known<'_>| {
            (known.importer, known.exporter, known.shared) == (&importer.name, &exporter.name, Shared::Stream)
                && known.theirs == theirs
        };
        if self.imports.iter().any(same) {
            return Err(ImportError::Duplicate);
        }
        let filter = Filter::parse(theirs).map_err(|_| ImportError::BadSubject)?;
        self.note(importer, exporter, import, &ours);
        Ok(Bridge { filter, rewrite, kind: BridgeKind::Stream, ..Bridge::blank() })
    }

    fn service(
        &mut self,
        importer: &'a AccountSpec,
        exporter: &'a AccountSpec,
        import: &ImportSpec,
    ) -> Result<Bridge, ImportError> {
        let theirs = import.subject.as_str();
        let ours = import.to.as_deref().unwrap_or(theirs);
        let filter = rewrite::filter(ours).filter(|_| is_valid_filter(theirs.as_bytes()));
        let filter = filter.ok_or(ImportError::BadSubject)?;
        let export = authorized(importer, exporter, import)?;
        let searched = rewrite::unnumbered(ours);
        self.service_circle(&exporter.name, &searched, &mut vec![importer.name.clone()])?;
        let rewrite =
            Rewrite::backwards(ours, theirs).map_err(|why| unmappable(import, ours, theirs, why))?;
        let kind = BridgeKind::Service {
            share: import.share,
            response: export.response,
            threshold: if export.threshold.is_zero() { RESPONSE_THRESHOLD } else { export.threshold },
        };
        self.note(importer, exporter, import, ours);
        Ok(Bridge { filter, rewrite, kind, ..Bridge::blank() })
    }

    fn note(
        &mut self,
        importer: &'a AccountSpec,
        exporter: &'a AccountSpec,
        import: &ImportSpec,
        ours: &str,
    ) {
        self.imports.push(Known {
            importer: &importer.name,
            exporter: &exporter.name,
            shared: import.shared,
            theirs: import.subject.clone(),
            ours: rewrite::unnumbered(ours),
        });
    }

    /// Follows what the exporter imports itself, as long as it exports that.
    fn stream_circle(&self, at: &str, subject: &str, seen: &mut Vec<String>) -> Result<(), ImportError> {
        let exports = self.accounts.iter().find(|account| account.name == at);
        let mut exports = exports.into_iter().flat_map(|account| &account.exports);
        let within = |export: &ExportSpec| is_subset(subject.as_bytes(), export.subject.as_bytes());
        if !exports.any(|export| export.shared == Shared::Stream && within(export)) {
            return Ok(());
        }
        let met = |known: &Known<'_>| overlaps(subject.as_bytes(), known.ours.as_bytes());
        for known in self.imports_of(at, Shared::Stream).filter(|known| met(known)) {
            let narrower = is_subset(known.ours.as_bytes(), subject.as_bytes());
            let next = if narrower { &known.ours } else { subject };
            visit(at, known, seen)?;
            self.stream_circle(known.exporter, next, seen)?;
        }
        Ok(())
    }

    /// Follows what the exporter imports itself.
    fn service_circle(&self, at: &str, subject: &str, seen: &mut Vec<String>) -> Result<(), ImportError> {
        let met = |known: &Known<'_>| overlaps(subject.as_bytes(), known.theirs.as_bytes());
        for known in self.imports_of(at, Shared::Service).filter(|known| met(known)) {
            let narrower = is_subset(known.ours.as_bytes(), subject.as_bytes());
            let next = if narrower { &known.ours } else { subject };
            visit(at, known, seen)?;
            self.service_circle(known.exporter, next, seen)?;
        }
        Ok(())
    }

    fn imports_of(&self, account: &str, shared: Shared) -> impl Iterator<Item = &Known<'a>> {
        self.imports.iter().filter(move |known| known.importer == account && known.shared == shared)
    }
}

impl Bridge {
    fn blank() -> Bridge {
        Bridge {
            from: AccountId::GLOBAL,
            filter: Filter::ALL,
            to: AccountId::GLOBAL,
            kind: BridgeKind::Stream,
            rewrite: Rewrite::Same,
        }
    }
}

fn visit(at: &str, known: &Known<'_>, seen: &mut Vec<String>) -> Result<(), ImportError> {
    if seen.iter().any(|seen| seen == known.exporter) {
        return Err(ImportError::Cycle);
    }
    seen.push(at.to_owned());
    Ok(())
}

fn unmappable(import: &ImportSpec, from: &str, to: &str, why: RewriteError) -> ImportError {
    let (from, to) = (from.to_owned(), to.to_owned());
    ImportError::Transform { shared: import.shared, from, to, why }
}

/// The export that allows this import: the one of exactly this subject, or the first that covers it.
fn authorized<'a>(
    importer: &AccountSpec,
    exporter: &'a AccountSpec,
    import: &ImportSpec,
) -> Result<&'a ExportSpec, ImportError> {
    let refused = ImportError::NotAuthorized { shared: import.shared };
    let subject = import.subject.as_bytes();
    if !is_valid_filter(subject) {
        return Err(refused);
    }
    let of_kind = || exporter.exports.iter().filter(|export| export.shared == import.shared);
    let exact = of_kind().find(|export| export.subject == import.subject);
    let covering = || of_kind().find(|export| is_subset(subject, export.subject.as_bytes()));
    let export = exact.or_else(covering).ok_or_else(|| refused.clone())?;
    let allowed = match (export.account_token_position, &export.accounts) {
        (0, _) if export.activation_required => import.activated,
        (0, None) => true,
        (0, Some(accounts)) => accounts.is_empty() || accounts.contains(&importer.name),
        (position, _) => tokens(subject).nth(position - 1) == Some(importer.name.as_bytes()),
    };
    if allowed { Ok(export) } else { Err(refused) }
}

#[cfg(test)]
#[path = "bridge/tests.rs"]
mod tests;
