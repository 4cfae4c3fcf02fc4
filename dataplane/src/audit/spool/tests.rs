//! What the spool promises: order, bounds, and that nothing is lost or skipped silently.
