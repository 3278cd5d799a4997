//! Scripts: folds written in JavaScript.
