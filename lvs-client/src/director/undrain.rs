//! A drain taken back. There is no command for it: an edit that says all of a server, and nothing of a drain, ends one.

use lvs_core::{Command, ServerKey, ServiceKey};
use lvs_genl::Errno;
use lvs_genl::convert::Request;
use lvs_genl::server::Refusal;

use super::{Running, Trouble};

impl Running {
    /// Puts a server that drains, or was drained, back into service.
    ///
    /// # Errors
    /// [`Errno::NO_SUCH`] if the service is not there, [`Errno::NO_ENTRY`] if the server is not; the director went away.
    pub fn undrain(&mut self, service: &ServiceKey, server: &ServerKey) -> Result<(), Trouble> {
        let mut services = vec![self.service(service)?];
        self.fill_servers(&mut services)?;
        let found = services.into_iter().flat_map(|service| service.servers).find(|found| found.config.key == *server);
        let unknown = || Trouble::Refused(Refusal::from(Errno::NO_ENTRY));
        let mut config = found.ok_or_else(unknown)?.config;
        config.drain = None;
        let mut request = Request::of_command(&Command::EditServer(*service, config)).ok_or_else(unknown)?;
        if let Some(server) = &mut request.server {
            server.additions.is_marked = true;
        }
        let request = self.client.request(&request);
        self.ask(&request, drop)
    }
}
