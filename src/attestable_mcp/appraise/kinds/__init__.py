"""One file a family of TEEs: what names its code, which rules it adds, how a pin is written. `table` has the rows."""
