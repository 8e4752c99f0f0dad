//! Commands for the meta group from a server that does not lead it: they go to its leader. While there is none they wait here,
//! as nobody else knows of them, and one that a leader took with it when it fell goes to the next.

use std::collections::BTreeMap;

use hw_hub::Hub;
use hw_jsapi::ApiError;
use hw_kit::{NodeId, Time};
use hw_meta::MetaCommand;

use super::ask::{PATIENCE, Question, ask};
use crate::api::Call;
use crate::commit::META;
use crate::jetstream::JetStream;
use crate::log::Origin;

/// What clients of this server wait for, by its number.
#[derive(Default)]
pub(crate) struct Proposals(BTreeMap<u64, Proposal>);

struct Proposal {
    call: Box<Call>,
    command: MetaCommand,
    until: Time,
    place: Place,
}

/// Where a command is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Nobody else knows of it.
    Here,
    /// With the leader of this term, or lost on the way: nobody can say before a later term begins.
    With(u64),
    /// In a state that came in one piece, or nowhere: nobody can say.
    Unknown,
}

impl Proposals {
    /// When a client has waited too long.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.0.values().map(|proposal| proposal.until).min()
    }

    /// A term began: what is with the leader of an earlier one, and was not decided before this, will not be.
    fn handle_term(&mut self, began: u64) {
        for proposal in self.0.values_mut() {
            if matches!(proposal.place, Place::With(term) if term < began) {
                proposal.place = Place::Here;
            }
        }
    }

    /// A state took the place of the log, in which a command could have been seen.
    fn handle_state(&mut self) {
        for proposal in self.0.values_mut() {
            if matches!(proposal.place, Place::With(_)) {
                proposal.place = Place::Unknown;
            }
        }
    }

    /// Those that have to go to the leader of a term.
    fn take_for(&mut self, term: u64) -> Vec<(u64, MetaCommand)> {
        let here = self.0.iter_mut().filter(|(_, proposal)| proposal.place == Place::Here);
        here.map(|(id, proposal)| {
            proposal.place = Place::With(term);
            (*id, proposal.command.clone())
        })
        .collect()
    }
}

impl JetStream {
    /// Has the leader of the meta group propose a command; this server answers when it has applied it.
    pub(crate) fn ask_meta(&mut self, now: Time, call: &Call, command: &MetaCommand) {
        let Some(cluster) = &mut self.cluster else { return };
        let proposal = Proposal {
            call: Box::new(call.clone()),
            command: command.clone(),
            until: now + PATIENCE,
            place: Place::Here,
        };
        cluster.proposals.0.insert(cluster.asks.next_id(), proposal);
        self.send_proposals();
    }

    /// What waits goes to whoever leads the meta group.
    fn send_proposals(&mut self) {
        if self.cluster.as_ref().is_none_or(|cluster| cluster.proposals.0.is_empty()) {
            return;
        }
        if self.leads_meta() {
            return self.propose_own();
        }
        // Who leads takes what it is asked only once it has begun, which is when this server may have heard that it has.
        let (began, term) = (self.meta_log.term(), self.replica(META).map(|meta| meta.replica.term()));
        let Some(leader) = self.other_leader(META).filter(|_| term == Some(began)) else { return };
        let Some(cluster) = &mut self.cluster else { return };
        for (id, command) in cluster.proposals.take_for(began) {
            let command = MetaCommand::Asked { node: cluster.me.0, id, command: Box::new(command) };
            cluster.send(leader, ask(id, &Question::Propose { term: began, command: Box::new(command) }));
        }
    }

    /// This server has come to lead the meta group itself.
    fn propose_own(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let here = cluster.proposals.0.extract_if(.., |_, proposal| proposal.place == Place::Here);
        for (_, Proposal { call, command, .. }) in here {
            self.meta_log.propose(Origin::Api(call), |out| command.encode(out));
        }
    }

    /// What waits for a leader, and who has waited long enough.
    pub(crate) fn run_proposals(&mut self, now: Time, hub: &Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let late = cluster.proposals.0.extract_if(.., |_, proposal| proposal.until <= now);
        for (_, proposal) in late.collect::<Vec<_>>() {
            self.answer(now, hub, &proposal.call, Err(ApiError::new(10008)));
        }
        self.send_proposals();
    }

    /// A term of the meta group began here.
    pub(crate) fn resolve_proposals(&mut self, term: u64) {
        if let Some(cluster) = &mut self.cluster {
            cluster.proposals.handle_term(term);
        }
        self.send_proposals();
    }

    /// The state of the meta group here is another one.
    pub(crate) fn blind_proposals(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.proposals.handle_state();
        }
    }

    /// Another server asks that this one propose a command, if it leads in that term; 0: in whichever. If it does not, whoever
    /// asked hears of a later term.
    pub(super) fn propose_for(&mut self, term: u64, command: &MetaCommand) {
        let leads_in = self.replica(META).map(|meta| meta.replica.term());
        if self.leads_meta() && (term == 0 || leads_in == Some(term)) {
            self.meta_log.propose(Origin::None, |out| command.encode(out));
        }
    }

    /// Has the leader of the meta group propose a command of which nobody waits to hear.
    pub(crate) fn propose_elsewhere(&mut self, leader: NodeId, command: MetaCommand) {
        if self.leads_meta() {
            return self.meta_log.propose(Origin::None, |out| command.encode(out));
        }
        let Some(cluster) = &mut self.cluster else { return };
        let id = cluster.asks.next_id();
        cluster.send(leader, ask(id, &Question::Propose { term: 0, command: Box::new(command) }));
    }

    /// Whose command this is, if a client of this server waits for it.
    pub(crate) fn find_asker(&mut self, command: MetaCommand, origin: Origin) -> (MetaCommand, Origin) {
        let MetaCommand::Asked { node, id, command } = command else { return (command, origin) };
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.me.0 == node) else {
            return (*command, Origin::None);
        };
        let asker = cluster.proposals.0.remove(&id);
        (*command, asker.map_or(Origin::None, |asker| Origin::Api(asker.call)))
    }
}
