//! What a person or a program reads: tables, JSON, progress; control characters made harmless.
