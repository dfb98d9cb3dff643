//! Every way in which a request can end, paid by key and by `X-Cashu`: right to the msat.
