//! A mint's Lightning: invoices count as paid at once, and what the mint is to pay is paid, fails
//! or stays pending, as a test says.
//!
//! Every invoice is remembered with how often it was paid, so that a test can say what truly left.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdk::Amount;
use cdk::cdk_payment::{
    CreateIncomingPaymentResponse, Error, Event, IncomingPaymentOptions, MakePaymentResponse,
    MintPayment, OutgoingPaymentOptions, PaymentIdentifier, PaymentQuoteResponse, SettingsResponse,
    WaitPaymentResponse,
};
use cdk::nuts::{CurrencyUnit, MeltQuoteState};
use cdk_fake_wallet::FakeWallet;

/// What becomes of what a mint is to pay. A pending payment follows a change of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payments {
    #[default]
    Succeed,
    Fail,
    Stall,
}

/// What was paid, shared by the units of one mint.
#[derive(Debug, Default)]
pub(crate) struct Node(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rule: Payments,
    invoices: HashMap<String, Invoice>,
}

#[derive(Debug, Default)]
struct Invoice {
    msat: u64,
    asked: u64,
    paid: u64,
    state: MeltQuoteState,
}

impl Node {
    pub(crate) fn rule(&self, rule: Payments) {
        self.lock().rule = rule;
    }

    /// The amount of every payment that was made.
    ///
    /// # Panics
    /// An invoice was paid twice.
    pub(crate) fn paid(&self) -> Vec<u64> {
        let state = self.lock();
        assert!(state.invoices.values().all(|invoice| invoice.paid <= 1), "paid twice");
        let paid = state.invoices.values().filter(|invoice| invoice.paid == 1);
        paid.map(|invoice| invoice.msat).collect()
    }

    /// How often an invoice was asked to be paid.
    pub(crate) fn asked(&self) -> u64 {
        self.lock().invoices.values().map(|invoice| invoice.asked).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pay(&self, hash: &str, msat: u64) -> MeltQuoteState {
        let mut state = self.lock();
        let rule = state.rule;
        let invoice = state.invoices.entry(hash.to_owned()).or_default();
        invoice.msat = msat;
        invoice.asked += 1;
        invoice.end(rule)
    }

    fn look(&self, hash: &str) -> (MeltQuoteState, u64) {
        let mut state = self.lock();
        let rule = state.rule;
        match state.invoices.get_mut(hash) {
            None => (MeltQuoteState::Unknown, 0),
            Some(invoice) if invoice.state == MeltQuoteState::Pending => {
                (invoice.end(rule), invoice.msat)
            }
            Some(invoice) => (invoice.state, invoice.msat),
        }
    }
}

impl Invoice {
    fn end(&mut self, rule: Payments) -> MeltQuoteState {
        self.state = match rule {
            Payments::Succeed => {
                self.paid += 1;
                MeltQuoteState::Paid
            }
            Payments::Fail => MeltQuoteState::Failed,
            Payments::Stall => MeltQuoteState::Pending,
        };
        self.state
    }
}

/// One unit's door to the node.
pub(crate) struct Lightning {
    pub(crate) fake: FakeWallet,
    pub(crate) node: Arc<Node>,
    pub(crate) unit: CurrencyUnit,
    /// What a payment costs, and what is reserved for that, in the unit.
    pub(crate) fee: u64,
    pub(crate) fee_reserve: u64,
}

impl Lightning {
    /// What so much costs in the unit, rounded up.
    fn amount(&self, msat: u64, fee: u64) -> Amount<CurrencyUnit> {
        let count = if self.unit == CurrencyUnit::Msat { msat } else { msat.div_ceil(1000) };
        Amount::new(count + fee, self.unit.clone())
    }
}

#[async_trait]
impl MintPayment for Lightning {
    type Err = Error;

    async fn get_settings(&self) -> Result<SettingsResponse, Error> {
        self.fake.get_settings().await
    }

    async fn create_incoming_payment_request(
        &self,
        options: IncomingPaymentOptions,
    ) -> Result<CreateIncomingPaymentResponse, Error> {
        self.fake.create_incoming_payment_request(options).await
    }

    async fn get_payment_quote(
        &self,
        unit: &CurrencyUnit,
        options: OutgoingPaymentOptions,
    ) -> Result<PaymentQuoteResponse, Error> {
        let quote = self.fake.get_payment_quote(unit, options).await?;
        let fee = Amount::new(self.fee_reserve, unit.clone());
        Ok(PaymentQuoteResponse { fee, ..quote })
    }

    async fn make_payment(
        &self,
        _: &CurrencyUnit,
        options: OutgoingPaymentOptions,
    ) -> Result<MakePaymentResponse, Error> {
        let OutgoingPaymentOptions::Bolt11(options) = options else {
            return Err(Error::UnsupportedPaymentOption);
        };
        let msat = options.bolt11.amount_milli_satoshis().unwrap_or_default();
        let hash = options.bolt11.payment_hash();
        let status = self.node.pay(&hash.to_string(), msat);
        Ok(MakePaymentResponse {
            payment_lookup_id: PaymentIdentifier::PaymentHash(*hash.as_ref()),
            payment_proof: Some("00".repeat(32)),
            status,
            total_spent: self.amount(msat, self.fee),
        })
    }

    async fn wait_payment_event(
        &self,
    ) -> Result<Pin<Box<dyn cdk::Stream<Item = Event> + Send>>, Error> {
        self.fake.wait_payment_event().await
    }

    fn is_payment_event_stream_active(&self) -> bool {
        self.fake.is_payment_event_stream_active()
    }

    fn cancel_payment_event_stream(&self) {
        self.fake.cancel_payment_event_stream();
    }

    async fn check_incoming_payment_status(
        &self,
        payment: &PaymentIdentifier,
    ) -> Result<Vec<WaitPaymentResponse>, Error> {
        self.fake.check_incoming_payment_status(payment).await
    }

    async fn check_outgoing_payment(
        &self,
        payment: &PaymentIdentifier,
    ) -> Result<MakePaymentResponse, Error> {
        let (status, msat) = self.node.look(&payment.to_string());
        Ok(MakePaymentResponse {
            payment_lookup_id: payment.clone(),
            payment_proof: Some("00".repeat(32)),
            status,
            total_spent: self.amount(msat, self.fee),
        })
    }
}
