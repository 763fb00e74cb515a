//! Calls of the service for the administration socket: made on the I/O thread, or by its workers, as
//! callbacks of the plugin are.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ServerHandle;
use crate::server::workers::ServiceCall;
use crate::service::Service;

/// How many calls may wait for the I/O thread.
const MAX_WAITING: usize = 8;

/// The I/O thread's end.
#[derive(Debug)]
pub(crate) struct Calls(Receiver<ServiceCall>);

/// The end of the threads of the administration socket.
#[derive(Debug)]
pub(super) struct Caller {
    calls: Sender<ServiceCall>,
    handle: ServerHandle,
}

/// The call was not made, or its result did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoResult;

pub(super) fn channel(handle: ServerHandle) -> (Caller, Calls) {
    let (calls, receiver) = bounded(MAX_WAITING);
    (Caller { calls, handle }, Calls(receiver))
}

impl Calls {
    /// The next call that waits.
    pub(crate) fn next(&self) -> Option<ServiceCall> {
        self.0.try_recv().ok()
    }
}

impl Caller {
    /// Has the server make a call, and waits for its result.
    pub(super) fn call<T: Send + 'static>(
        &self,
        timeout: Duration,
        call: impl FnOnce(&Service) -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let (sender, result) = bounded(1);
        let call = ServiceCall::new(move |service| {
            // After the timeout, there is no thread that waits for it.
            let _ = sender.send(call(service));
        });
        self.calls.try_send(call).map_err(|_| NoResult)?;
        self.handle.call();
        result.recv_timeout(timeout).map_err(|_| NoResult)
    }
}
