//! InitProducerId: identities for idempotent producers.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::broker::Broker;
use super::error::DoorError;

impl Broker {
    pub(crate) async fn init_producer_id(
        &self,
        request: InitProducerIdRequest,
    ) -> InitProducerIdResponse {
        let failed = |error: DoorError| {
            tracing::warn!(%error, "no producer id given");
            InitProducerIdResponse::default()
                .with_error_code(error.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        };
        if let Some(id) = request.transactional_id {
            // Of Kafka's codes, this is the one that clients take as final.
            return failed(DoorError::refused(
                ResponseError::TransactionalIdAuthorizationFailed,
                format!("transactions are not served, and \"{}\" asks for one", id.as_str()),
            ));
        }
        // As in Kafka, a producer without transactions always gets a new id, whatever it had.
        match self.blocking(|log| log.new_producer()).await {
            Ok((id, epoch)) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id.get()))
                .with_producer_epoch(epoch.get()),
            Err(error) => failed(error.into()),
        }
    }
}
