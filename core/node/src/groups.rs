//! The groups of a server by their numbers, each in a place of its own: a tree with room for eleven of them in every node
//! would be half empty.

use std::collections::BTreeMap;

use hw_kit::GroupId;

use crate::group::Group;

/// Groups in the order of their numbers.
#[derive(Default)]
pub(crate) struct Groups(BTreeMap<GroupId, Box<Group>>);

impl Groups {
    pub(crate) fn get(&self, id: &GroupId) -> Option<&Group> {
        self.0.get(id).map(|group| &**group)
    }

    pub(crate) fn get_mut(&mut self, id: &GroupId) -> Option<&mut Group> {
        self.0.get_mut(id).map(|group| &mut **group)
    }

    pub(crate) fn insert(&mut self, group: Box<Group>) {
        self.0.insert(group.id, group);
    }

    pub(crate) fn remove(&mut self, id: &GroupId) -> Option<Box<Group>> {
        self.0.remove(id)
    }

    pub(crate) fn contains_key(&self, id: &GroupId) -> bool {
        self.0.contains_key(id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &GroupId> {
        self.0.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Group> {
        self.0.values().map(|group| &**group)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.0.values_mut().map(|group| &mut **group)
    }
}
