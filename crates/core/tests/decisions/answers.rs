//! What the answer to an order changes, and what an announced death does.
