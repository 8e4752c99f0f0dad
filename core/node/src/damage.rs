//! Damage that was found: kept for whoever looks, and told once to whoever listens.

use std::collections::BTreeSet;

use bytes::Bytes;
use hw_hub::Hub;
use hw_jsapi::{DamageFound, Event};
use hw_kit::{AccountId, GroupId, Span, Time};
use hw_store::{Damage, Flaw};

use crate::jetstream::JetStream;
use crate::limits::FINDINGS_MAX;
use crate::view::Damaged;

/// An index that the disk failed to read is read again after this.
const FAULT_RETRY: Span = Span::from_secs(1);

/// What was found since the start, the first of each place.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    /// How many did not fit.
    left_out: u64,
    /// The hub's interest changes when it was last looked whether anybody listens.
    interest_seen: Option<u64>,
    /// How many are not told everywhere.
    untold: usize,
    /// Failures to read indexes when it was last looked for them.
    failures_seen: u64,
    /// Streams of which that is in the log, or will be.
    faulty: BTreeSet<GroupId>,
    /// What was found then and is not in the log yet.
    lines: Vec<String>,
    /// When indexes that the disk failed to read are read again, if there are any.
    again: Option<Time>,
}

/// One place, or a stream of which no place is known.
struct Finding {
    group: GroupId,
    damaged: Damaged,
    found: Time,
    /// Whether the account heard of it, and the system account.
    told: (bool, bool),
}

impl Findings {
    /// Notes something, unless it is known.
    fn add(&mut self, now: Time, group: GroupId, damaged: Damaged) {
        let is_known = |one: &Finding| one.group == group && one.damaged.reason == damaged.reason;
        if self.list.iter().any(is_known) {
            return;
        }
        if self.list.len() >= FINDINGS_MAX {
            self.left_out += 1;
            return;
        }
        self.list.push(Finding { group, damaged, found: now, told: (false, false) });
        self.untold += 1;
        self.interest_seen = None;
    }

    /// A stream is gone, and its damage with it.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.faulty.remove(&group);
        self.list.retain(|one| one.group != group);
        self.untold = self.list.iter().filter(|one| one.told != (true, true)).count();
    }

    /// One place of a stream is as it should be.
    fn forget_one(&mut self, group: GroupId, reason: &str) {
        self.faulty.remove(&group);
        self.list.retain(|one| one.group != group || one.damaged.reason != reason);
        self.untold = self.list.iter().filter(|one| one.told != (true, true)).count();
    }

    /// What is wrong, in the order in which it was found.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Damaged> {
        self.list.iter().map(|one| &one.damaged)
    }

    /// How many more there are than are listed.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Whether the disk failed to read it, which says nothing of what is there.
fn is_unreadable(fault: &Damage) -> bool {
    matches!(fault.flaw, Flaw::Unreadable { .. })
}

impl JetStream {
    /// When [`JetStream::read_faults_again`] has something to do.
    pub(crate) fn fault_deadline(&self) -> Option<Time> {
        self.findings.again
    }

    /// Reads indexes again that the disk failed to read a while ago, of streams that nobody else has: such a stream goes on
    /// when its disk does, as one whose blocks could not be read.
    pub(crate) fn read_faults_again(&mut self, now: Time) {
        if self.findings.again.is_none_or(|again| again > now) {
            return;
        }
        self.findings.again = None;
        for id in self.findings.faulty.clone() {
            let Some(group) = self.groups.get_mut(&id).filter(|group| !group.log.has_others()) else {
                continue;
            };
            let Some(fault) = group.stream.messages().fault().filter(is_unreadable) else { continue };
            if !group.stream.messages_mut().read_fault_again() {
                self.findings.again = Some(now + FAULT_RETRY);
                continue;
            }
            // What else is wrong with it stays.
            let reason = fault.to_string();
            group.damage.take_if(|damage| *damage == reason);
            group.wake_schedules();
            let name = group.stream.config().name.clone();
            self.findings.forget_one(id, &reason);
            self.findings
                .lines
                .push(format!("an index of stream {name} that could not be read is read again"));
            self.touch(id);
            self.touch_followers(id);
            self.snapshots.touch(id);
        }
    }

    /// Looks for streams whose index could not be read, if there was such a failure since the last call.
    pub(crate) fn look_for_faults(&mut self, now: Time, hub: &mut Hub) {
        let failures = self.pages.as_ref().map_or(0, |pages| pages.failures());
        if std::mem::replace(&mut self.findings.failures_seen, failures) == failures {
            return;
        }
        let mut found = Vec::new();
        for group in self.groups.values_mut() {
            group.look_for_fault();
            let fault = group.stream.messages().fault();
            found.extend(fault.map(|fault| (group.id, group.account, fault)));
        }
        for (id, account, fault) in found {
            let (account, reason) = (self.account_name(account), fault.to_string());
            self.note_damage(now, id, account, reason.clone());
            self.handle_fault(now, hub, id, &fault);
            // What was found while the store was read back is noted, and not in the log yet.
            if is_unreadable(&fault) {
                self.findings.again.get_or_insert(now + FAULT_RETRY);
            }
            if self.findings.faulty.insert(id) {
                self.findings.lines.push(format!("a segment is damaged: {reason}"));
            }
        }
    }

    /// What operators should read of what was found by looking into indexes.
    pub(crate) fn take_damage_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.findings.lines)
    }

    /// Something of a stream in an account turned out to be damaged.
    pub(crate) fn note_damage(&mut self, now: Time, id: GroupId, account: String, reason: String) {
        let asset = self.meta.all().find(|(_, asset)| asset.group() == id);
        let Some(stream) = asset.map(|(_, asset)| asset.config.name.clone()) else { return };
        let quarantined = self.aside.quarantined.contains_key(&id);
        self.findings.add(now, id, Damaged { account, stream, reason, quarantined })
    }

    /// Tells of damage in the account that it concerns and in the system account, each as soon as somebody listens
    /// there: what is found at the start is found before anybody can.
    pub(crate) fn tell_damage(&mut self, now: Time, hub: &Hub) {
        let changes = Some(hub.interest_changes());
        if self.findings.untold == 0 || self.findings.interest_seen == changes {
            return;
        }
        let mut list = std::mem::take(&mut self.findings.list);
        let system = self.directory.system_account();
        for one in list.iter_mut().filter(|one| one.told != (true, true)) {
            let account = self.directory.account_id(&one.damaged.account);
            one.told.0 = one.told.0 || account.is_none_or(|account| self.tell(now, hub, account, one));
            let system = system.filter(|system| Some(*system) != account);
            one.told.1 = one.told.1 || system.is_none_or(|account| self.tell(now, hub, account, one));
        }
        self.findings.untold = list.iter().filter(|one| one.told != (true, true)).count();
        self.findings.interest_seen = changes;
        self.findings.list = list;
    }

    /// Says whether anybody listened.
    fn tell(&mut self, now: Time, hub: &Hub, account: AccountId, finding: &Finding) -> bool {
        let damaged = &finding.damaged;
        if !hub.has_interest(account, hw_jsapi::damage_subject(&damaged.stream).as_bytes()) {
            return false;
        }
        let place = damaged.place();
        let found = DamageFound {
            account: &damaged.account,
            server: &self.config.server_name,
            file: place.map(|(file, _)| file),
            offset: place.map(|(_, offset)| offset),
            reason: &damaged.reason,
            quarantined: damaged.quarantined,
            found: finding.found.to_rfc3339(),
        };
        let (event, id) = (Event::Damaged(&found), self.ids.next_id());
        let (subject, json) = hw_jsapi::advisory(&event, &damaged.stream, &self.config.domain, id, now);
        self.outbox.send(account, Bytes::from(subject), json);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damaged(reason: &str) -> Damaged {
        Damaged { reason: reason.to_owned(), ..Damaged::default() }
    }

    #[test]
    fn each_place_is_kept_once_and_up_to_a_limit() {
        let mut findings = Findings::default();
        for _ in 0..2 {
            findings.add(Time(1), GroupId(1), damaged("a"));
        }
        findings.add(Time(1), GroupId(2), damaged("a"));
        assert_eq!((findings.all().count(), findings.untold, findings.left_out()), (2, 2, 0));
        findings.forget(GroupId(1));
        assert_eq!((findings.all().count(), findings.untold), (1, 1));
        for at in 0..FINDINGS_MAX {
            findings.add(Time(1), GroupId(1), damaged(&at.to_string()));
        }
        assert_eq!((findings.all().count(), findings.left_out()), (FINDINGS_MAX, 1));
    }

    #[test]
    fn what_heals_leaves_what_else_is_wrong_with_the_stream() {
        let mut findings = Findings::default();
        for (group, reason) in [(1, "an index"), (1, "a block"), (2, "an index")] {
            findings.add(Time(0), GroupId(group), damaged(reason));
        }
        findings.forget_one(GroupId(1), "an index");
        let left: Vec<&str> = findings.all().map(|one| one.reason.as_str()).collect();
        assert_eq!((left, findings.untold), (vec!["a block", "an index"], 2));
        findings.forget(GroupId(1));
        assert_eq!(findings.all().count(), 1);
    }

    #[test]
    fn only_what_the_disk_failed_to_read_may_be_well_again() {
        let file = hw_store::FileId::Segment(GroupId(1), 2);
        let of = |flaw| Damage { file, offset: 0, flaw };
        assert!(is_unreadable(&of(Flaw::Unreadable { reason: "EIO".to_owned() })));
        assert!(!is_unreadable(&of(Flaw::Checksum { part: "page" })) && !is_unreadable(&of(Flaw::Missing)));
    }
}
