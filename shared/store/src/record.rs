//! Rows with named columns.

/// A struct whose fields are read from the columns of their names.
macro_rules! record {
    ($(#[$about:meta])* $visibility:vis struct $name:ident of $row:ty { $($field:ident: $kind:ty,)+ }) => {
        $(#[$about])*
        $visibility struct $name { $($field: $kind,)+ }

        impl sqlx::FromRow<'_, $row> for $name {
            fn from_row(row: &$row) -> sqlx::Result<Self> {
                Ok(Self { $($field: sqlx::Row::try_get(row, stringify!($field))?,)+ })
            }
        }
    };
}

pub(crate) use record;
