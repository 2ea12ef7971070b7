//! The thread on which a link does its exchanges, one after the other.

use super::failure::{Failure, unreachable};
use super::patience::Patience;
use super::{Link, Request};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use sync_shared::{Error, Result};

type Answer = Result<String, Failure>;

pub struct Worker {
    requests: Option<Sender<Arc<Request>>>,
    answers: Receiver<Answer>,
    patience: Arc<Patience>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub fn start(mut link: Box<dyn Link>, patience: Arc<Patience>) -> Result<Worker> {
        let (requests, to_do) = channel::<Arc<Request>>();
        let (done, answers) = channel();
        let name = link.name().to_owned();
        let run = move || {
            for request in to_do {
                if done.send(link.run(&request)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("sync_with".to_owned()).spawn(run).map_err(|error| unreachable(&name, error))?;
        Ok(Worker { requests: Some(requests), answers, patience, thread: Some(thread) })
    }

    pub fn send(&self, request: Arc<Request>) {
        // A thread that is gone is noticed by who waits for its answer.
        self.requests.as_ref().map(|requests| requests.send(request));
    }

    /// The answer to the request that was sent first, if it comes in time.
    pub fn wait(&self, time: Duration) -> Result<Option<Answer>> {
        match self.answers.recv_timeout(time) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::corrupt("the network's thread has ended")),
        }
    }
}

impl Drop for Worker {
    /// Waits for the thread: its code may be unloaded with the extension.
    fn drop(&mut self) {
        self.patience.give_up();
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst, and is gone then as well.
            thread.join().ok();
        }
    }
}
