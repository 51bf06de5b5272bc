//! Who sends a request, by everything that it shows.

use super::Asked;
use crate::identity::local::Owner;
use crate::identity::{Method, NotAuthenticated, Principal, Proof};
use crate::venue::Refusal as Why;
use crate::venue::rest::{Handling, RestReading};

impl Asked<'_> {
    /// Who sends the request, and to whom we issued what it shows beside that. A proof that came with its head counts;
    /// then what the venue's own protocol has as proof is a dummy, unless it is one of ours.
    pub(super) async fn who(
        &self,
        proved: Option<Principal>,
        reading: &mut RestReading,
    ) -> Result<(Principal, Option<Owner>), Why> {
        let house = &self.door.house;
        let venue = self.route.venue.name();
        match (proved, reading.shown.take()) {
            (Some(who), Some(shown)) if who.method() != Method::NoAuth => {
                let owner = house.trusted.local().and_then(|local| local.owner(&shown, venue, house.clock.now()));
                Ok((who, owner))
            }
            (Some(who), _) => Ok((who, None)),
            (None, Some(shown)) => {
                let proof = Proof::shown_at(venue, shown);
                let outcome = house.authenticate(&proof, self.connection.source, self.connection.peer).await;
                outcome.map(|who| (who, None)).map_err(|why| match why {
                    NotAuthenticated::Replayed | NotAuthenticated::NonceTooOld => Why::Replayed,
                    _ => Why::NotAuthenticated,
                })
            }
            (None, None) if reading.handling == Handling::Public && self.policy.admits_anonymous(&self.route) => {
                Ok((Principal::anonymous(), None))
            }
            (None, None) => Err(Why::NotAuthenticated),
        }
    }
}
