//! What the cores have to do besides compressing: found out from how much of it was done.
//!
//! The stages' costs in `plan` are those of a host that has nothing else to do. Where workers have to
//! wait for a core there is more, be it the devices', the kernel's or somebody else's, and what it
//! comes to for each byte is what is left of the cores' time without the workers' part. Where they
//! do not wait that is the most that it can be.

/// What is believed before anything was measured, as a factor of the stages' costs.
const PRIOR: f64 = 1.2;
const MIN: f64 = 0.7;
const MAX: f64 = 10.0;
/// Workers that take so many times their own time for a chunk wait for a core.
const WAITS: f64 = 1.2;
/// How far a measurement moves the factor.
const STEP: f64 = 0.5;
/// A measurement that is off by less than this factor says nothing.
const SCATTERS: f64 = 1.5;
/// How much of what is above the prior is forgotten with each measurement that says nothing.
const FORGETS: f64 = 0.03;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Load {
    factor: f64,
    /// The workers' time since the last measurement, on a core and all in all.
    cpu_ns: f64,
    wall_ns: f64,
}

impl Load {
    pub(super) fn new() -> Load {
        Load { factor: PRIOR, cpu_ns: 0.0, wall_ns: 0.0 }
    }

    /// The stages' costs are so many times what a free host has.
    pub(super) fn factor(&self) -> f64 {
        self.factor
    }

    /// A worker is done with a chunk.
    pub(super) fn worked(&mut self, cpu_ns: u64, wall_ns: u64) {
        self.cpu_ns += cpu_ns as f64;
        self.wall_ns += wall_ns as f64;
    }

    /// In so much time of the cores state was moved for which the stages, on a free host, need
    /// `stages_ns`; for each nanosecond of a worker here the target needs `decode` on these cores.
    pub(super) fn measured(&mut self, cores_ns: f64, stages_ns: f64, decode: f64) {
        let (cpu_ns, wall_ns) = (self.cpu_ns, self.wall_ns);
        (self.cpu_ns, self.wall_ns) = (0.0, 0.0);
        let most = ((cores_ns - cpu_ns * (1.0 + decode)) / stages_ns.max(1.0)).clamp(MIN, MAX);
        self.factor = if cpu_ns > 0.0 && wall_ns > cpu_ns * WAITS {
            // What is left of the cores' time is a small difference, and scatters.
            let far = most > self.factor * SCATTERS || self.factor > most * SCATTERS;
            self.factor + if far { (most - self.factor) * STEP } else { 0.0 }
        } else {
            let forgotten = (self.factor - PRIOR).max(0.0) * FORGETS;
            (self.factor - forgotten).min(most)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core's microsecond for each piece of work of half of that.
    fn measure(load: &mut Load, worker_cpu_ns: u64, worker_wall_ns: u64) {
        load.worked(worker_cpu_ns, worker_wall_ns);
        load.measured(1000.0, 200.0, 0.5);
    }

    #[test]
    fn where_workers_wait_the_rest_of_the_time_went_elsewhere() {
        let mut load = Load::new();
        (0..20).for_each(|_| measure(&mut load, 200, 400));
        // 1000 - 200 * 1.5 of 200.
        assert!((3.5 / SCATTERS..=3.5).contains(&load.factor()), "{}", load.factor());
    }

    #[test]
    fn where_they_do_not_it_is_a_bound() {
        let mut load = Load::new();
        measure(&mut load, 200, 200);
        assert_eq!(load.factor(), PRIOR);
        measure(&mut load, 560, 560);
        assert!((load.factor() - 0.8).abs() < 0.01, "{}", load.factor());
    }

    #[test]
    fn what_is_not_measured_any_more_is_forgotten() {
        let mut load = Load::new();
        (0..20).for_each(|_| measure(&mut load, 200, 400));
        (0..400).for_each(|_| measure(&mut load, 0, 0));
        assert!(load.factor() < PRIOR * 1.01, "{}", load.factor());
    }
}
