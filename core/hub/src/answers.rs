//! Requests that went into another account, and the way back for their answers.
//!
//! A service must not answer into an account that it does not know: it gets a reply subject of its own account, which
//! stands here for the asker's. The subjects of one shard share a prefix, so that answers from every shard find back.

use std::collections::BTreeSet;

use hw_kit::{AccountId, Map, Rng, ShardId, Span, Time};

/// A request that waits for its answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// Where the service is.
    pub service: AccountId,
    /// Where the asker is.
    pub asker: AccountId,
    /// Where the asker wants the answers.
    pub reply: Box<[u8]>,
    /// The first answer is the last.
    pub single: bool,
    /// How long the next answer may take.
    pub threshold: Span,
    deadline: Time,
}

#[derive(Debug)]
pub(crate) struct Answers {
    /// `_R_.`, and a token that no other shard has.
    prefix: Vec<u8>,
    /// By the last token of the reply subject.
    open: Map<[u8; TOKEN], Answer>,
    deadlines: BTreeSet<(Time, [u8; TOKEN])>,
    /// Accounts whose services answer.
    listening: Vec<AccountId>,
}

const TOKEN: usize = 12;

impl Answers {
    pub fn new(rng: &mut Rng, shard: ShardId) -> Answers {
        let prefix = [b"_R_.", &rng.base62::<6>()[..], shard.0.to_string().as_bytes(), b"."].concat();
        Answers { prefix, open: Map::default(), deadlines: BTreeSet::new(), listening: vec![] }
    }

    /// All reply subjects of this shard.
    pub fn filter(&self) -> Vec<u8> {
        [&self.prefix[..], b"*"].concat()
    }

    /// Whether the account is told for the first time.
    pub fn listen(&mut self, account: AccountId) -> bool {
        let new = !self.listening.contains(&account);
        if new {
            self.listening.push(account);
        }
        new
    }

    /// A request of `asker` goes to `service`: the reply subject that the service sees.
    pub fn open(&mut self, now: Time, rng: &mut Rng, mut answer: Answer) -> Vec<u8> {
        while let Some(&(deadline, token)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, token));
            self.open.remove(&token);
        }
        let token = rng.base62::<TOKEN>();
        answer.deadline = now + answer.threshold;
        self.deadlines.insert((answer.deadline, token));
        self.open.insert(token, answer);
        [&self.prefix[..], &token].concat()
    }

    /// The request that a service answers on this subject.
    pub fn find(&self, service: AccountId, subject: &[u8]) -> Option<&Answer> {
        self.open.get(&self.token(subject)?).filter(|answer| answer.service == service)
    }

    /// The request has its last answer, or nobody hears it.
    pub fn close(&mut self, subject: &[u8]) {
        if let Some(token) = self.token(subject)
            && let Some(answer) = self.open.remove(&token)
        {
            self.deadlines.remove(&(answer.deadline, token));
        }
    }

    /// The next answer may take as long again.
    pub fn prolong(&mut self, now: Time, subject: &[u8]) {
        if let Some(token) = self.token(subject)
            && let Some(answer) = self.open.get_mut(&token)
        {
            self.deadlines.remove(&(answer.deadline, token));
            answer.deadline = now + answer.threshold;
            self.deadlines.insert((answer.deadline, token));
        }
    }

    fn token(&self, subject: &[u8]) -> Option<[u8; TOKEN]> {
        subject.strip_prefix(&self.prefix[..])?.try_into().ok()
    }
}

impl Answer {
    pub fn new(service: AccountId, asker: AccountId, reply: &[u8], single: bool, threshold: Span) -> Answer {
        // Counted from the moment it is sent.
        Answer { service, asker, reply: reply.into(), single, threshold, deadline: Time::NEVER }
    }

    /// Whether nobody waits for it any more.
    pub fn is_late(&self, now: Time) -> bool {
        self.deadline <= now
    }
}
