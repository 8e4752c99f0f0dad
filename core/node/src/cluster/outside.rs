//! A server that was taken out of the cluster. What it knows of streams is of the time before: its clients' messages and
//! requests go to the others.

use hw_hub::Hub;

use super::Replicated;
use crate::commit::META;
use crate::jetstream::JetStream;

impl JetStream {
    /// This server is told that it does not belong to the cluster.
    pub(crate) fn go_outside(&mut self, hub: &mut Hub) {
        if let Some(cluster) = &mut self.cluster {
            cluster.is_outside = true;
        }
        if let Some(meta) = self.replica_mut(META) {
            // What its leader said before does not bring this server back.
            meta.proven = false;
        }
        self.stop_capturing(hub);
    }

    /// Whether that is so.
    pub(crate) fn is_outside(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.is_outside)
    }

    /// It may have come back.
    pub(crate) fn come_inside(&mut self, hub: &mut Hub) {
        let is_led = |meta: &Replicated| meta.proven || meta.is_leading();
        if self.is_outside()
            && self.replica(META).is_some_and(is_led)
            && let Some(cluster) = &mut self.cluster
        {
            cluster.is_outside = false;
            self.capture_all(hub);
        }
    }
}
