//! Checks of what only PostgreSQL has: plans of the hot statements, skipped locks, waits in order, nothing left in a session.
//!
//! They need a server, so they are no unit tests: whoever has one calls [`run_all`] with its URL. The database is migrated and
//! filled with runs of namespaces of their own; a check that fails panics with what it saw.

mod locks;
mod plans;
mod races;
mod sample;
mod session;

use super::Postgres;

/// Sees who waits for locks in one database.
#[derive(Debug)]
pub struct Waits(Postgres);

impl Waits {
    /// Looks at the database at `url`.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn of(url: &str) -> Self {
        Self(Postgres::open(url).await.expect("the store is opened"))
    }

    /// How many connections wait for a lock now.
    pub async fn count(&self) -> usize {
        sample::waiting(&self.0).await
    }
}

/// Runs every check on the database at `url`.
///
/// # Panics
/// When a check fails.
pub async fn run_all(url: &str) {
    let (one, two) = tokio::join!(Postgres::open(url), Postgres::open(url));
    let (one, two) = (one.expect("the first scheduler opens the store"), two.expect("the second scheduler opens the store"));
    let (first, second) = tokio::join!(one.migrate(), two.migrate());
    first.expect("the first scheduler migrates");
    second.expect("the second scheduler migrates at the same time");
    assert_eq!(
        one.pending_migrations().await.expect("the migrations are listed"),
        Vec::<String>::new(),
        "nothing is pending after a migration"
    );

    session::the_checks_know_the_statuses_of_the_contract(&one).await;
    session::every_view_can_be_read(&one).await;
    session::a_failed_transaction_is_not_committed(&one).await;
    session::a_newer_schema_is_refused_once_something_was_taken_away(&one).await;
    locks::claims_of_two_schedulers_share_no_run(&one, &two).await;
    locks::who_holds_a_lock_waits_for_no_run(&one, &two).await;
    locks::a_taken_slot_hides_a_run_and_no_other(&one).await;
    locks::ends_of_the_same_runs_in_any_order_do_not_deadlock(&one).await;
    locks::runs_that_poke_each_other_do_not_deadlock(&one, &two).await;
    locks::submitters_of_one_key_wait_for_each_other(&one, &two).await;
    races::a_poke_that_comes_while_another_is_dealt_with_stays(&one, &two).await;
    races::a_run_that_comes_while_its_parent_ends_is_poked(&one, &two).await;
    races::a_parent_that_ends_while_a_run_comes_pokes_it(&one, &two).await;
    races::a_kill_that_comes_while_its_run_is_accepted_is_tried_again(&one, &two).await;
    races::a_run_accepted_twice_at_once_is_tried_again(&one, &two).await;
    session::a_lost_connection_is_replaced(&one, &two).await;
    plans::hot_statements_use_their_indexes(&one).await;
    plans::a_backlog_is_claimed_in_the_order_of_its_index(&one).await;
    session::nothing_is_left_in_a_session(&one).await;
}
