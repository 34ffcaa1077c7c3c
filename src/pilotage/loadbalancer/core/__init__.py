"""Pure: who gets which address (`pools`), who answers for it (`election`), and the answer (`arp`)."""
