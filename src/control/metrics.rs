//! The whole host in one scrape, as OpenMetrics text (which Prometheus reads).
//!
//! Source: OpenMetrics specification 1.0. Names are those of the Go duckgres
//! where it has the metric. What a worker counts has the label `worker`; a worker
//! that does not answer is missing, and `duckgres_worker_up` says so.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::observe::{Census, Observer, SeenWorker};
use crate::process;
use crate::proto::{Histogram, MetricsReply, Pinned};

/// The media type of [`text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics, as they are now.
pub async fn text(observer: &Observer) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::take(observer).await));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// What one scrape says.
#[derive(Debug)]
struct Scrape {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    worker: Option<u16>,
    /// The other label, if there is one.
    reason: Option<String>,
    value: Number,
}

#[derive(Debug)]
enum Number {
    Counter(u64),
    Gauge(u64),
    Histogram(Histogram),
}

impl Number {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }
}

impl Scrape {
    async fn take(observer: &Observer) -> Self {
        let workers = observer.workers().await;
        let mut families = host(observer, &workers);
        families.extend(of_workers(&workers, &observer.census()));
        Self { families }
    }
}

fn host(observer: &Observer, workers: &[SeenWorker]) -> Vec<Family> {
    let one = |name, help, value| Family {
        name,
        help,
        samples: vec![Sample {
            worker: None,
            reason: None,
            value,
        }],
    };
    let active = workers.iter().filter(|seen| seen.report.is_some()).count() as u64;
    let limits = &observer.limits;
    vec![
        one(
            "duckgres_connections_open",
            "Sessions that workers have, those on their way included",
            Number::Gauge(observer.pool.sessions().into()),
        ),
        one(
            "duckgres_auth_failures",
            "Failed logins",
            Number::Counter(limits.failed_logins()),
        ),
        one(
            "duckgres_rate_limit_rejects",
            "Connections refused for their address",
            Number::Counter(limits.rejected()),
        ),
        one(
            "duckgres_rate_limited_ips",
            "Addresses that are banned",
            Number::Gauge(limits.banned().len() as u64),
        ),
        one(
            "duckgres_control_plane_workers_active",
            "Workers that report",
            Number::Gauge(active),
        ),
        one(
            "duckgres_control_plane_uptime_seconds",
            "Time since the control plane was started",
            Number::Gauge(observer.started.elapsed().as_secs()),
        ),
        one(
            "duckgres_control_plane_resident_memory_bytes",
            "Resident memory of the control plane",
            Number::Gauge(process::resident_bytes(std::process::id()).unwrap_or_default()),
        ),
    ]
}

fn of_workers(workers: &[SeenWorker], census: &Census) -> Vec<Family> {
    let each = |name, help, of: &dyn Fn(&SeenWorker) -> Option<Number>| Family {
        name,
        help,
        samples: workers
            .iter()
            .filter_map(|seen| {
                Some(Sample {
                    worker: Some(seen.worker.id),
                    reason: None,
                    value: of(seen)?,
                })
            })
            .collect(),
    };
    let counted = |name, help, of: &dyn Fn(&MetricsReply) -> Number| {
        each(name, help, &|seen| seen.counted.as_ref().map(of))
    };
    vec![
        counted(
            "duckgres_query_duration_seconds",
            "How long statements took, from their message to their last row",
            &|counted| Number::Histogram(counted.query_seconds.clone().unwrap_or_default()),
        ),
        counted(
            "duckgres_query_errors",
            "Errors that clients were told of",
            &|counted| Number::Counter(counted.query_errors),
        ),
        counted("duckgres_rows_sent", "Rows sent to clients", &|counted| {
            Number::Counter(counted.rows_sent)
        }),
        counted(
            "duckgres_bytes_sent",
            "Bytes sent to clients, as on the network",
            &|counted| Number::Counter(counted.bytes_sent),
        ),
        counted(
            "duckgres_worker_pinned_sessions",
            "Sessions in a transaction",
            &|counted| Number::Gauge(counted.pinned_sessions.into()),
        ),
        pinned(workers),
        each(
            "duckgres_worker_sessions_frozen",
            "Sessions on their way to another process",
            &|seen| Some(Number::Gauge(seen.frozen().into())),
        ),
        each(
            "duckgres_worker_sessions_moved",
            "Sessions that the worker has got from workers that left",
            &|seen| Some(Number::Counter(seen.worker.tally.moved_sessions())),
        ),
        counted(
            "duckgres_session_pause_seconds",
            "How long sessions were frozen, until they went on in this process",
            &|counted| Number::Histogram(counted.pause_seconds.clone().unwrap_or_default()),
        ),
        each(
            "duckgres_worker_up",
            "Whether the worker answered this scrape",
            &|seen| Some(Number::Gauge(seen.counted.is_some().into())),
        ),
        each("duckgres_worker_sessions", "Sessions of the worker", &|seen| {
            let sessions = census.workers.get(&seen.worker.id);
            Some(Number::Gauge(sessions.copied().unwrap_or_default().into()))
        }),
        each(
            "duckgres_worker_databases_open",
            "Databases that the worker has open",
            &|seen| Some(Number::Gauge(seen.report.as_ref()?.open_databases.len() as u64)),
        ),
        each(
            "duckgres_worker_handoffs",
            "Sessions that the worker has taken",
            &|seen| {
                let taken = seen.worker.tally.handoffs().counts.iter().sum();
                Some(Number::Counter(taken))
            },
        ),
        each(
            "duckgres_worker_handoff_failures",
            "Offers of a session that the worker refused or did not answer",
            &|seen| Some(Number::Counter(seen.worker.tally.failed_handoffs())),
        ),
        each(
            "duckgres_worker_handoff_seconds",
            "How long handing a session over took",
            &|seen| Some(Number::Histogram(seen.worker.tally.handoffs())),
        ),
        each(
            "duckgres_worker_restarts",
            "How often the worker's process was replaced",
            &|seen| Some(Number::Counter(seen.worker.tally.restarts())),
        ),
        each(
            "duckgres_worker_resident_memory_bytes",
            "Resident memory of the worker's process",
            &|seen| seen.resident_bytes().map(Number::Gauge),
        ),
    ]
}

/// Why sessions could not go on in another process now.
fn pinned(workers: &[SeenWorker]) -> Family {
    let of = |seen: &SeenWorker| {
        let (id, pinned) = (
            seen.worker.id,
            seen.counted.as_ref().map(|counted| &counted.pinned),
        );
        let sample = move |pinned: &Pinned| Sample {
            worker: Some(id),
            reason: Some(pinned.reason.clone()),
            value: Number::Gauge(pinned.sessions.into()),
        };
        pinned.into_iter().flatten().map(sample).collect::<Vec<_>>()
    };
    Family {
        name: "duckgres_worker_sessions_pinned",
        help: "Sessions that cannot go on in another process now, by why",
        samples: workers.iter().flat_map(of).collect(),
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in &self.families {
            // A family without samples has nothing to say.
            let Some(first) = family.samples.first() else {
                continue;
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, first.value.kind())?;
            for sample in &family.samples {
                match (sample.worker, &sample.reason) {
                    (Some(id), Some(reason)) => {
                        let labels = [("worker", id.to_string()), ("reason", reason.clone())];
                        sample.value.encode(metric.encode_family(&labels)?)?;
                    }
                    (Some(id), None) => sample
                        .value
                        .encode(metric.encode_family(&[("worker", u64::from(id))])?)?,
                    (None, _) => sample.value.encode_alone(&mut metric)?,
                }
            }
        }
        Ok(())
    }
}

impl Number {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.encode_alone(&mut encoder)
    }

    fn encode_alone(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Histogram(histogram) => {
                let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
                let count = histogram.counts.iter().sum();
                encoder.encode_histogram::<NoLabelSet>(histogram.sum, count, &buckets, None)
            }
        }
    }
}
