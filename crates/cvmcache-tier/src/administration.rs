//! What an administrator sees of a tier, and can have it do.

use cvmcache::admin::{Administration, Gauge};

use crate::hot::HotTier;
use crate::tiered::Tiered;

impl<H: HotTier> Administration for Tiered<H> {
    fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = Vec::new();
        for (state, count) in self.tier.markers.counts() {
            let name = state.name();
            gauges.push(Gauge::new(
                format!("{name}_objects"),
                count.objects,
                format!("Objects with a marker in state {}", name.to_uppercase()),
            ));
            gauges.push(Gauge::new(format!("{name}_bytes"), count.bytes, "Their lengths together"));
        }
        let (queued, refused) = self.write_back.len_and_refused();
        let statistics = &self.tier.statistics;
        gauges.extend([
            Gauge::new("recalling_objects", self.tier.recalls.running(), "Objects on their way back"),
            Gauge::new("queued_objects", queued, "Objects that wait to be written back"),
            Gauge::new("unqueued_objects", refused, "Objects that were not queued since it was full"),
            Gauge::new("recalls", statistics.recalls.succeeded(), "Objects that came back"),
            Gauge::new("failed_recalls", statistics.recalls.failed(), "Objects that did not"),
            Gauge::new("recalled_bytes", statistics.recalls.bytes(), "Their lengths together"),
            Gauge::new("uploads", statistics.uploads.succeeded(), "Objects written to the store"),
            Gauge::new("failed_uploads", statistics.uploads.failed(), "Objects that were not"),
            Gauge::new("uploaded_bytes", statistics.uploads.bytes(), "Their lengths together"),
        ]);
        gauges
    }
}
