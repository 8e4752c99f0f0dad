//! What a user may publish, subscribe to, and be sent.

use hw_kit::Span;
use hw_subject::{is_subset, is_valid_filter, matches, overlaps};

use crate::spec::{PermissionsSpec, SpecError};

/// The two lists of one direction, as configured. An empty `allow` allows everything that is not denied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Allowance {
    /// Subjects, or for subscriptions also `subject queue`.
    pub allow: Vec<String>,
    /// The same; wins over `allow`.
    pub deny: Vec<String>,
}

/// The right to answer a request on its reply subject, whatever the publish lists say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponsePermission {
    /// Messages for one request; negative means no limit.
    pub max: i64,
    /// How long after the request; negative means no limit.
    pub expires: Span,
}

impl Default for ResponsePermission {
    fn default() -> ResponsePermission {
        ResponsePermission { max: 1, expires: Span::from_secs(120) }
    }
}

/// A list entry: a subject pattern, for queue subscriptions a pattern of the queue's name too.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Pattern {
    subject: Box<[u8]>,
    queue: Option<Box<[u8]>>,
}

/// A user's permissions, ready to be asked. Deny wins over allow.
#[derive(Debug, Eq, PartialEq)]
pub struct Permissions {
    /// The publish lists as configured.
    pub publish: Allowance,
    /// The subscribe lists as configured.
    pub subscribe: Allowance,
    /// Whether and how long the user may answer requests.
    pub allow_responses: Option<ResponsePermission>,
    publish_allow: Vec<Pattern>,
    publish_deny: Vec<Pattern>,
    subscribe_allow: Vec<Pattern>,
    subscribe_deny: Vec<Pattern>,
}

impl Permissions {
    /// Checks every subject of the lists.
    pub fn new(spec: &PermissionsSpec) -> Result<Permissions, SpecError> {
        Ok(Permissions {
            publish_allow: subjects(&spec.publish.allow)?,
            publish_deny: subjects(&spec.publish.deny)?,
            subscribe_allow: with_queues(&spec.subscribe.allow)?,
            subscribe_deny: with_queues(&spec.subscribe.deny)?,
            publish: spec.publish.clone(),
            subscribe: spec.subscribe.clone(),
            allow_responses: spec.allow_responses,
        })
    }

    /// Whether a message may be published on this subject. Answers to requests are the caller's to allow, by
    /// [`Permissions::allow_responses`]: they need no right to publish and no deny stops them.
    pub fn may_publish(&self, subject: &[u8]) -> bool {
        // A user with nothing but the right to respond may publish nothing else.
        let open = self.publish_allow.is_empty() && self.allow_responses.is_none();
        let allowed = open || self.publish_allow.iter().any(|p| matches(&p.subject, subject));
        allowed && !self.publish_deny.iter().any(|p| matches(&p.subject, subject))
    }

    /// Whether this subscription may be made. A wildcard filter that reaches into a denied subject is accepted, and
    /// [`Permissions::may_deliver`] must then be asked for every delivery, see [`Permissions::filters_deliveries`].
    pub fn may_subscribe(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        self.allows(filter, queue) && !denied(&self.subscribe_deny, filter, queue)
    }

    /// Whether deliveries to this accepted subscription must be asked for one by one.
    pub fn filters_deliveries(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        self.subscribe_deny.iter().any(|p| applies(p, queue) && overlaps(&p.subject, filter))
    }

    /// Whether a message on this subject may be sent to a subscription with this queue.
    pub fn may_deliver(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        !denied(&self.subscribe_deny, subject, queue)
    }

    // Stricter than nats-server on purpose: there `foo.>` passes `allow: foo.*`, which then delivers `foo.a.b`.
    fn allows(&self, filter: &[u8], queue: Option<&[u8]>) -> bool {
        if self.subscribe_allow.is_empty() {
            return true;
        }
        let mut covering = self.subscribe_allow.iter().filter(|p| is_subset(filter, &p.subject));
        let Some(queue) = queue else {
            return covering.any(|p| p.queue.is_none());
        };
        // Queue entries for this subject restrict the queue's name, even beside an entry without a queue.
        let mut plain = false;
        let mut restricted = false;
        for pattern in covering {
            match &pattern.queue {
                None => plain = true,
                Some(allowed) if matches(allowed, queue) => return true,
                Some(_) => restricted = true,
            }
        }
        plain && !restricted
    }
}

/// The filter is read as a literal subject: one that a deny takes word for word (`foo.>` by `foo.*`) is refused outright.
fn denied(deny: &[Pattern], subject: &[u8], queue: Option<&[u8]>) -> bool {
    deny.iter().any(|p| applies(p, queue) && matches(&p.subject, subject))
}

fn applies(pattern: &Pattern, queue: Option<&[u8]>) -> bool {
    match (&pattern.queue, queue) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(pattern), Some(queue)) => matches(pattern, queue),
    }
}

fn subjects(list: &[String]) -> Result<Vec<Pattern>, SpecError> {
    list.iter()
        .map(|text| match is_valid_filter(text.as_bytes()) {
            true => Ok(Pattern { subject: text.as_bytes().into(), queue: None }),
            false => Err(SpecError::BadSubject { subject: text.clone() }),
        })
        .collect()
}

fn with_queues(list: &[String]) -> Result<Vec<Pattern>, SpecError> {
    list.iter()
        .map(|text| {
            let mut words = text.split_ascii_whitespace();
            let (subject, queue) = (words.next().unwrap_or(""), words.next());
            if words.next().is_some() || !is_valid_filter(subject.as_bytes()) {
                return Err(SpecError::BadSubject { subject: text.clone() });
            }
            match queue {
                Some(queue) if !is_valid_filter(queue.as_bytes()) => {
                    Err(SpecError::BadQueue { queue: queue.into() })
                }
                _ => Ok(Pattern {
                    subject: subject.as_bytes().into(),
                    queue: queue.map(|queue| queue.as_bytes().into()),
                }),
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "permissions/tests.rs"]
mod tests;
