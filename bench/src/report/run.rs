//! The result of one run, and of several. Both sides' clocks are one: CLOCK_MONOTONIC.

use serde::Serialize;

use super::seen::SeenReset;
use super::spread::{Spread, median};
use super::timeline::Timeline;
use crate::outcome::Latencies;
use crate::process::message::{DeviceReport, SideReport};
use crate::process::pair::PairReport;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All devices run on the target with the state that the source had.
    Complete,
    /// The migration ended early and said so.
    Aborted,
    /// The migration said that all was well, and the states differ.
    Mismatch,
    /// A side could not begin with what was asked for.
    Refused,
    /// A process ended, or hung, without a report.
    Failed,
}

/// The phase that begins when the source has let go. The target's other phases are the source's
/// seen from the other end.
const LAST_PHASE: &str = "resume";
/// The phases in which the guest still runs.
const GUEST_RUNS: [&str; 3] = ["connect", "start", "pre_copy"];

/// Whether the guest still runs in this phase.
pub(crate) fn guest_runs_in(phase: &str) -> bool {
    GUEST_RUNS.contains(&phase)
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Why, unless it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// Bytes that the target's devices took.
    pub(crate) state_bytes: u64,
    /// Bytes that the source put on the wire.
    pub(crate) wire_bytes: u64,
    /// From the call that stopped the first device to the last device's RUNNING: the target's, or
    /// the source's again after an abort.
    pub(crate) downtime_ns: u64,
    /// What the engine forecast of it, last before the switchover; none without PRE_COPY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forecast_ns: Option<u64>,
    /// What each device's transitions took: what the next run is told.
    #[serde(skip)]
    pub(crate) latencies: Vec<Latencies>,
    /// From the first call to any device to the last device's RUNNING.
    pub(crate) total_ns: u64,
    /// From where the first stopped device could be read to the last byte written.
    pub(crate) transfer_ns: u64,
    /// The source's phases, and the one that only the target has.
    #[serde(serialize_with = "super::spread::as_map")]
    pub(crate) phases_ns: Vec<(String, u64)>,
    /// CPU of both processes.
    pub(crate) cpu_ns: u64,
    /// The part of it that stands for the devices.
    pub(crate) device_cpu_ns: u64,
    /// Peak memory of the source's process.
    pub(crate) rss_source_bytes: u64,
    /// Peak memory of the target's.
    pub(crate) rss_target_bytes: u64,
    /// What made the system calls.
    pub(crate) backend: String,
    /// What guarded the streams.
    pub(crate) protection: String,
    /// What the connections used.
    pub(crate) tcp_congestion: String,
    /// Resets of the source's devices.
    pub(crate) resets: u32,
    /// Bytes read from each of the source's devices, all sessions together.
    pub(crate) read_bytes: Vec<u64>,
    /// Bytes of state that were sent in vain.
    pub(crate) discarded_bytes: u64,
    /// The reset that was planned, if it came.
    #[serde(skip)]
    pub(crate) reset: Option<SeenReset>,
    /// Whether all of the source's devices ended in RUNNING.
    pub(crate) source_runs: bool,
    /// What happened when, if it was recorded.
    #[serde(skip)]
    pub(crate) timeline: Option<Timeline>,
}

impl Run {
    /// Judges a run. Verified is only what both devices' own digests say.
    pub(crate) fn new(pair: &PairReport) -> Run {
        let none = SideReport::default();
        let source = pair.source.as_ref().unwrap_or(&none);
        let target = pair.target.as_ref().unwrap_or(&none);
        let (outcome, message) = judge(pair);
        let first = |time: fn(&DeviceReport) -> u64| {
            source.devices.iter().map(time).filter(|&ns| ns > 0).min().unwrap_or(0)
        };
        let last =
            |time: fn(&DeviceReport) -> u64| target.devices.iter().map(time).max().unwrap_or(0);
        let begun = first(|device| device.started_ns);
        let stopped = first(|device| device.stop_called_ns);
        // After an abort it is on the source that the guest goes on, once that is known there.
        let running = match outcome {
            Outcome::Complete => last(|device| device.running_ns),
            _ => source.ended_ns,
        };
        // A device that was never stopped has no downtime.
        let since = |ns: u64| if ns > 0 { running.saturating_sub(ns) } else { 0 };
        let mut phases_ns = source.phases_ns.clone();
        phases_ns.extend(target.phases_ns.iter().filter(|(name, _)| name == LAST_PHASE).cloned());
        let join = |one: &str, two: &str| {
            if one == two || two.is_empty() { one.to_owned() } else { format!("{one}+{two}") }
        };
        Run {
            outcome,
            message,
            state_bytes: target.devices.iter().map(|device| device.bytes).sum(),
            wire_bytes: source.wire_bytes,
            downtime_ns: since(stopped),
            forecast_ns: source.forecast_ns,
            latencies: source.latencies.clone(),
            total_ns: since(begun),
            transfer_ns: last(|device| device.last_transfer_ns)
                .saturating_sub(first(|device| device.stop_copy_ns)),
            phases_ns,
            cpu_ns: source.cpu_ns + target.cpu_ns,
            device_cpu_ns: source.device_cpu_ns + target.device_cpu_ns,
            rss_source_bytes: source.peak_rss_bytes,
            rss_target_bytes: target.peak_rss_bytes,
            backend: join(&source.backend, &target.backend),
            protection: join(&source.protection, &target.protection),
            tcp_congestion: join(&source.tcp_congestion, &target.tcp_congestion),
            // The target's device is reset by the engine, too, to discard an epoch.
            resets: source.devices.iter().map(|device| device.resets).sum(),
            read_bytes: source.devices.iter().map(|device| device.all_bytes).collect(),
            discarded_bytes: source.discarded_bytes,
            reset: SeenReset::of(source, target),
            source_runs: source.devices.iter().all(|device| device.state == "RUNNING"),
            timeline: Timeline::new(source, target),
        }
    }
}

impl Run {
    /// Each phase is the longest of all devices', and the target's last one is part of the source's.
    fn phases_overlap_ns(&self) -> u64 {
        let stopped = self.phases_ns.iter().filter(|(name, _)| !guest_runs_in(name));
        match self.downtime_ns {
            // Nobody knows it.
            0 => 0,
            downtime => stopped.map(|(_, ns)| ns).sum::<u64>().saturating_sub(downtime),
        }
    }

    /// How far the state shrank on its way. What was discarded had its bytes on the wire.
    fn ratio_millionths(&self) -> u64 {
        let sent = u128::from(self.state_bytes) + u128::from(self.discarded_bytes);
        let ratio = sent * 1_000_000 / u128::from(self.wire_bytes.max(1));
        if self.wire_bytes == 0 { 0 } else { u64::try_from(ratio).unwrap_or(u64::MAX) }
    }
}

/// How a run went, by what both sides reported.
pub(crate) fn judge(pair: &PairReport) -> (Outcome, Option<String>) {
    if let Some(refusal) = &pair.refusal {
        return (Outcome::Refused, Some(refusal.clone()));
    }
    let (source, target) = match (&pair.source, &pair.target) {
        (Some(source), Some(target)) => (source, target),
        _ => return (Outcome::Failed, pair.failure.clone()),
    };
    let faults: Vec<String> = [("source", source), ("target", target)]
        .iter()
        .filter_map(|(side, report)| Some(format!("{side}: {}", report.fault.as_ref()?)))
        .collect();
    if !faults.is_empty() {
        return (Outcome::Aborted, Some(faults.join("; ")));
    }
    for (index, (one, two)) in source.devices.iter().zip(&target.devices).enumerate() {
        let equal = one.digest.is_some() && one.digest == two.digest && one.bytes == two.bytes;
        if !equal {
            let show = |device: &DeviceReport| {
                let digest = device.digest.as_deref().unwrap_or("no digest");
                format!("{} bytes, {digest}", device.bytes)
            };
            let message = format!(
                "device {index} has another state: source {}; target {}",
                show(one),
                show(two)
            );
            return (Outcome::Mismatch, Some(message));
        }
        if two.state != "RUNNING" {
            let message = format!("device {index} is in {} on the target", two.state);
            return (Outcome::Mismatch, Some(message));
        }
    }
    (Outcome::Complete, None)
}

/// Several runs of the same. The spreads are over the complete ones.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Runs {
    /// The worst ending.
    pub(crate) outcome: Outcome,
    /// Why, unless all are complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// Whether there were complete runs and every one's digests were equal.
    pub(crate) verified: bool,
    /// Complete runs.
    pub(crate) runs: usize,
    /// Median.
    pub(crate) state_bytes: u64,
    /// Median.
    pub(crate) wire_bytes: u64,
    /// From stop to RUNNING.
    pub(crate) downtime_ns: Spread,
    /// How the forecasts of it were, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forecast: Option<Forecast>,
    /// From readable to written.
    pub(crate) transfer_ns: Spread,
    /// From the first call to RUNNING.
    pub(crate) total_ns: Spread,
    /// By phase.
    #[serde(serialize_with = "super::spread::as_map")]
    pub(crate) phases_ns: Vec<(String, Spread)>,
    /// How much longer the stopped guest's phases are together than its downtime, median.
    pub(crate) phases_overlap_ns: u64,
    /// Bytes of state that were sent, in vain too, over bytes on the wire, median; 0 without any.
    pub(crate) ratio: f64,
    /// State bytes over the total, median.
    pub(crate) throughput_bytes_per_s: u64,
    /// Both processes, median.
    pub(crate) cpu_ns: u64,
    /// Of it, the test devices' own threads, median.
    pub(crate) device_cpu_ns: u64,
    /// The larger of the two sides.
    pub(crate) peak_rss_bytes: u64,
    /// The source's.
    pub(crate) peak_rss_source_bytes: u64,
    /// The target's.
    pub(crate) peak_rss_target_bytes: u64,
    /// io_uring or syscalls.
    pub(crate) backend: String,
    /// What guarded the streams, and who sealed and opened: none, tls_kernel or tls_user_space.
    pub(crate) protection: String,
    /// What the connections used.
    pub(crate) tcp_congestion: String,
    /// Resets in all runs.
    pub(crate) resets: u32,
    /// State that was sent in vain because of them, median.
    pub(crate) discarded_bytes: u64,
    /// Every run by itself, in order.
    pub(crate) each: Vec<Run>,
}

impl Runs {
    /// Sums runs up.
    pub(crate) fn new(runs: &[Run]) -> Runs {
        let bad = runs.iter().find(|run| run.outcome != Outcome::Complete);
        let good: Vec<&Run> = runs.iter().filter(|run| run.outcome == Outcome::Complete).collect();
        let over = |value: fn(&Run) -> u64| Spread::of(good.iter().map(|run| value(run)));
        let most = |value: fn(&Run) -> u64| runs.iter().map(value).max().unwrap_or(0);
        let any = good.first().copied().or(runs.first());
        let name = |value: fn(&Run) -> &String| any.map(value).cloned().unwrap_or_default();
        let exact = |value: fn(&Run) -> u64| median(good.iter().map(|run| value(run)).collect());
        let (source, target) = (most(|run| run.rss_source_bytes), most(|run| run.rss_target_bytes));
        Runs {
            outcome: bad.map_or(Outcome::Complete, |run| run.outcome),
            message: bad.and_then(|run| run.message.clone()),
            verified: bad.is_none() && !good.is_empty(),
            runs: good.len(),
            state_bytes: exact(|run| run.state_bytes),
            wire_bytes: exact(|run| run.wire_bytes),
            downtime_ns: over(|run| run.downtime_ns),
            forecast: Forecast::of(&good),
            transfer_ns: over(|run| run.transfer_ns),
            total_ns: over(|run| run.total_ns),
            phases_ns: phases(&good),
            phases_overlap_ns: exact(Run::phases_overlap_ns),
            ratio: exact(Run::ratio_millionths) as f64 / 1e6,
            throughput_bytes_per_s: exact(|run| per_second(run.state_bytes, run.total_ns)),
            cpu_ns: exact(|run| run.cpu_ns),
            device_cpu_ns: exact(|run| run.device_cpu_ns),
            peak_rss_bytes: source.max(target),
            peak_rss_source_bytes: source,
            peak_rss_target_bytes: target,
            backend: name(|run| &run.backend),
            protection: name(|run| &run.protection),
            tcp_congestion: name(|run| &run.tcp_congestion),
            resets: runs.iter().map(|run| run.resets).sum(),
            discarded_bytes: exact(|run| run.discarded_bytes),
            each: runs.to_vec(),
        }
    }
}

/// What the engine forecast of the downtime, beside what came.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Forecast {
    /// The last forecast before each switchover.
    pub(crate) downtime_ns: Spread,
    /// The downtime that came over that, median; 1 is a good forecast, 2 came twice as long.
    pub(crate) came_over_forecast: f64,
    /// Runs in which it was within 10 % of what came, or 2 ms.
    pub(crate) good: usize,
    /// Runs in which there was one.
    pub(crate) runs: usize,
}

/// Within a tenth of what came, or 2 ms.
pub(crate) fn is_forecast_good(forecast_ns: u64, downtime_ns: u64) -> bool {
    forecast_ns.abs_diff(downtime_ns) <= (downtime_ns / 10).max(2_000_000)
}

impl Forecast {
    fn of(runs: &[&Run]) -> Option<Forecast> {
        let pairs: Vec<(u64, u64)> =
            runs.iter().filter_map(|run| Some((run.forecast_ns?, run.downtime_ns))).collect();
        if pairs.is_empty() {
            return None;
        }
        let thousandths =
            |&(forecast, came): &(u64, u64)| came.saturating_mul(1000) / forecast.max(1);
        Some(Forecast {
            downtime_ns: Spread::of(pairs.iter().map(|&(forecast, _)| forecast)),
            came_over_forecast: median(pairs.iter().map(thousandths).collect()) as f64 / 1000.0,
            good: pairs
                .iter()
                .filter(|&&(forecast, came)| is_forecast_good(forecast, came))
                .count(),
            runs: pairs.len(),
        })
    }
}

fn phases(runs: &[&Run]) -> Vec<(String, Spread)> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.phases_ns) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let times = |name: &String| {
        let of = |run: &&Run| run.phases_ns.iter().find(|(it, _)| it == name).map(|&(_, ns)| ns);
        Spread::of(runs.iter().filter_map(of).collect::<Vec<_>>())
    };
    names.into_iter().map(|name| (name.clone(), times(name))).collect()
}

/// Bytes per second; 0 if no time has passed.
pub(crate) fn per_second(bytes: u64, ns: u64) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / u128::from(ns.max(1));
    if ns == 0 { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests;
