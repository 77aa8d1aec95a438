"""The only way out of the browser: a proxy that dials nothing but addresses it has checked."""
