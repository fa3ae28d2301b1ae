//! Stands in for the helper crate that sqlx's tests are written against, which is not published:
//! connections from `DATABASE_URL`, and macros that make tests of values and types.

use sqlx::{Connection, Database, Pool};

/// Nothing to set up beyond what the environment says.
pub fn setup_if_needed() {}

/// A new connection.
pub async fn new<DB: Database>() -> anyhow::Result<DB::Connection> {
    Ok(DB::Connection::connect(&std::env::var("DATABASE_URL")?).await?)
}

/// A new pool.
pub async fn pool<DB: Database>() -> anyhow::Result<Pool<DB>> {
    let options = sqlx::pool::PoolOptions::<DB>::new().min_connections(0).max_connections(5);
    Ok(options.connect(&std::env::var("DATABASE_URL")?).await?)
}

/// A value as text and as a parameter: both kinds of tests below.
#[macro_export]
macro_rules! test_type {
    ($name:ident<$type:ty>($db:ident, $sql:literal, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_unprepared_type!($name<$type>($db, $($text == $value),+));
        $crate::test_parameter!($name<$type>($db, $sql, $($text == $value),+));
    };
    ($name:ident<$type:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_unprepared_type!($name<$type>($db, $($text == $value),+));
        $crate::test_prepared_type!($name<$type>($db, $($text == $value),+));
    };
    ($name:ident($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_type!($name<$name>($db, $($text == $value),+));
    };
}

/// The value read back, prepared and not.
#[macro_export]
macro_rules! test_decode_type {
    ($name:ident<$type:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_unprepared_type!($name<$type>($db, $($text == $value),+));
        paste::item! {
            #[sqlx::test]
            async fn [<test_prepared_decode_ $name>]() -> anyhow::Result<()> {
                use sqlx::Row;
                let mut connection = $crate::new::<sqlx::$db>().await?;
                $(
                    let row = sqlx::query(concat!("SELECT ", $text))
                        .fetch_one(&mut connection)
                        .await?;
                    assert_eq!($value, row.try_get::<$type, _>(0)?);
                )+
                Ok(())
            }
        }
    };
}

/// The value read back from a simple query, which sends text.
#[macro_export]
macro_rules! test_unprepared_type {
    ($name:ident<$type:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        paste::item! {
            #[sqlx::test]
            async fn [<test_unprepared_ $name>]() -> anyhow::Result<()> {
                use sqlx::{Executor, Row};
                let mut connection = $crate::new::<sqlx::$db>().await?;
                $(
                    let row = connection.fetch_one(concat!("SELECT ", $text)).await?;
                    // A simple query's types are not known to the client.
                    assert_eq!($value, row.try_get_unchecked::<$type, _>(0)?);
                )+
                Ok(())
            }
        }
    };
}

/// The value sent as a parameter, compared by the server, and read back.
#[macro_export]
macro_rules! test_prepared_type {
    ($name:ident<$type:ty>($db:ident, $($text:literal == $value:expr),+ $(,)?)) => {
        $crate::test_parameter!($name<$type>(
            $db,
            "SELECT ({0} is not distinct from $1)::int4, {0}, $2",
            $($text == $value),+
        ));
    };
}

/// The same with a statement of the test's own.
#[macro_export]
macro_rules! test_parameter {
    ($name:ident<$type:ty>($db:ident, $sql:literal, $($text:literal == $value:expr),+ $(,)?)) => {
        paste::item! {
            #[sqlx::test]
            async fn [<test_prepared_ $name>]() -> anyhow::Result<()> {
                use sqlx::Row;
                let mut connection = $crate::new::<sqlx::$db>().await?;
                $(
                    let statement = format!($sql, $text);
                    let row = sqlx::query(&statement)
                        .bind($value)
                        .bind($value)
                        .fetch_one(&mut connection)
                        .await?;
                    let (same, decoded, echoed): (i32, $type, $type) =
                        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                    assert_eq!(same, 1, "the server received another value than {}", $text);
                    assert_eq!($value, decoded);
                    assert_eq!($value, echoed);
                )+
                Ok(())
            }
        }
    };
}
