//! Operators, accounts and users as JWTs: who is let in, and who is not.
