//! Where requests are served. The future that serves one has room for all that may become of it, and is large: it is lent to a
//! connection while a request is at work, so that one that waits holds no more than waiting needs.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use maille_http::h1::RequestMeta;

use super::exchange::exchange;
use super::http::{After, Client};
use super::reply::{self, Malformed};
use super::scratch::Scratch;
use super::spare::Spare;

/// The free desks of a worker.
pub(crate) struct Desks(Spare<Desk>);

/// A request to serve; its head is in the scratch, if it is one.
pub(crate) struct Order {
    pub(crate) client: Box<Client>,
    pub(crate) scratch: Box<Scratch>,
    pub(crate) request: Result<RequestMeta, Malformed>,
}

/// A request that was served.
pub(crate) struct Served {
    pub(crate) client: Box<Client>,
    /// As the request has left it.
    pub(crate) scratch: Box<Scratch>,
    pub(crate) after: After,
}

/// A future that serves one request after the other, whoever's they are, and how it is handed them.
struct Desk {
    work: Pin<Box<dyn Future<Output = Infallible>>>,
    tray: Rc<Tray>,
}

#[derive(Default)]
struct Tray {
    order: Cell<Option<Order>>,
    served: Cell<Option<Served>>,
}

impl Desks {
    pub(crate) fn new() -> Desks {
        Desks(Spare::new(64))
    }

    /// Serves a request. Whoever stops waiting has it end where it is.
    pub(crate) async fn serve(&self, order: Order) -> Served {
        let mut desk = self.0.take().unwrap_or_else(Desk::new);
        desk.tray.order.set(Some(order));
        let served = poll_fn(|cx| {
            let Poll::Pending = desk.work.as_mut().poll(cx);
            desk.tray.served.take().map_or(Poll::Pending, Poll::Ready)
        });
        let served = served.await;
        self.0.give(desk);
        served
    }

    /// Frees some of those that nobody needs.
    pub(crate) fn trim(&self) {
        self.0.trim();
    }
}

impl Desk {
    fn new() -> Desk {
        let tray = Rc::<Tray>::default();
        Desk { work: Box::pin(work(tray.clone())), tray }
    }
}

async fn work(tray: Rc<Tray>) -> Infallible {
    loop {
        // It is polled by whoever has put an order there.
        let order = poll_fn(|_| tray.order.take().map_or(Poll::Pending, Poll::Ready));
        let Order { mut client, mut scratch, request } = order.await;
        let manager = client.manager.clone();
        let after = match request {
            Ok(meta) => exchange(&mut client, &manager, &mut scratch, meta).await,
            Err(malformed) => {
                reply::refuse(&mut client, &manager, &mut scratch, malformed).await;
                After::Linger
            }
        };
        tray.served.set(Some(Served { client, scratch, after }));
    }
}
