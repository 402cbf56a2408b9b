//! The door for Prometheus: `GET /metrics` over HTTP/1.1, and nothing else.
//!
//! Whoever connects can make the server keep `MOST` connections for
//! `LONGEST` each; others wait in the kernel's queue. Every connection has one
//! answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::duty::Duty;
use super::error::StartError;
use super::listen;
use super::metrics;
use super::observe::Observer;
use crate::config::MetricsAddress;

/// Where metrics are served by default.
const DEFAULT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9090));

/// How many connections are served at the same time.
const MOST: usize = 16;

/// How long one may last, from its acceptance to its end.
const LONGEST: Duration = Duration::from_secs(10);

/// More of a request's header is not read.
const LARGEST_HEADER: usize = 16 * 1024;

/// Listens where the configuration says; `None` if nowhere. By default another
/// program may have the port: that is no reason not to start. If what is wanted is
/// `open` already, it is taken from there.
pub fn open(
    address: Option<MetricsAddress>,
    open: &mut Vec<TcpListener>,
) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    match address {
        Some(MetricsAddress::Off) => Ok(None),
        Some(MetricsAddress::At(address)) => open_at(address, true, open),
        None => open_at(DEFAULT, false, open),
    }
}

fn open_at(
    mut wanted: SocketAddr,
    configured: bool,
    open: &mut Vec<TcpListener>,
) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    if let Some(Ok(known)) = open
        .first()
        .filter(|_| wanted.port() == 0)
        .map(TcpListener::local_addr)
    {
        wanted.set_port(known.port());
    }
    let bound = listen::take_or_bind(wanted, open)
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    match bound {
        Ok((listener, address)) => {
            info!("metrics are served on http://{address}/metrics");
            Ok(Some((listener, address)))
        }
        Err(source) if configured => Err(StartError::Metrics {
            address: wanted,
            source,
        }),
        Err(error) => {
            warn!("metrics are not served, {wanted} cannot be listened on ({error}): set metrics.address");
            Ok(None)
        }
    }
}

/// Answers while this process is on duty. When that is over, returns after the last
/// answer.
pub async fn serve(listener: Arc<TcpListener>, observer: Arc<Observer>, mut duty: Duty) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut over = duty.clone();
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = duty.during(listener.accept()) => accepted,
            () = over.is_over() => {
                drop(place);
                let _ = places.acquire_many(MOST as u32).await;
                return;
            }
        };
        let stream = match accepted {
            None => continue,
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                debug!(%error, "a request for metrics was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let observer = observer.clone();
        tokio::spawn(async move {
            let _place = place;
            let answer = service_fn(|request| {
                let observer = observer.clone();
                async move { Ok::<_, Infallible>(answer(&request, &observer).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(LONGEST / 2)
                .max_buf_size(LARGEST_HEADER)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            match tokio::time::timeout(LONGEST, connection).await {
                Ok(Err(error)) => debug!(%error, "a request for metrics failed"),
                Err(_) => debug!("a request for metrics took too long"),
                Ok(Ok(())) => {}
            }
        });
    }
}

async fn answer(request: &Request<Incoming>, observer: &Observer) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics::MEDIA_TYPE, metrics::text(observer).await),
        (_, "/metrics") => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET\n".to_owned(),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "metrics are at /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_an_error_only_where_it_was_asked_for() {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (_listener, taken) = open_at(free, true, &mut Vec::new()).unwrap().unwrap();
        assert!(open_at(taken, false, &mut Vec::new()).unwrap().is_none());
        let error = open_at(taken, true, &mut Vec::new()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot serve metrics on {taken} (")),
            "{error}"
        );
        assert!(
            open(Some(MetricsAddress::Off), &mut Vec::new())
                .unwrap()
                .is_none()
        );
    }
}
