// Package fleet decides what the fleet of runners should do next.
//
// It does no I/O, starts no goroutine and reads no clock: every fact, the time included,
// arrives in a World, and every wish leaves in a Plan. Decide follows these rules; each is
// one function of the same number, in this order. A runner gets at most one wish; the
// earlier rule wins.
//
//  1. match: each open job belongs to the pool with the fewest labels that has all of the
//     job's (case aside), the first in the config among equals. It never spills over.
//  2. advance: a runner that GitHub shows in a job, by an event or its list, is Busy, whatever its row says.
//  3. end: a runner whose job has ended has a minute left, one whose job outlasts the pool's
//     job timeout has none. Nothing else ends a Busy runner here, and nothing else one that GitHub shows in a job.
//  4. doubt: a VM that the list shows stopped or lacks, or a registration that the list lacks,
//     is a hint: ask singly. Only the answers may end a runner.
//  5. expire: a Preparing runner past its clone or boot timeout leaves; so does one whose
//     clone was perhaps asked for, when nobody remembers the task. One for which nothing was asked ends.
//  6. resume: what nobody works on is taken up again: Preparing where its task is known,
//     Joining by asking its guest, Leaving always.
//  7. need: per pool, work = max(open jobs, Busy), need = min(Max, work + Ready wish),
//     have = Preparing + Ready + Joining + Idle + Busy. Runners whose job has ended count as leaving,
//     and jobs in progress count by the runners that have them.
//  8. join: min(Ready runners, work − (Joining + Idle + Busy)) Ready ones, oldest first. A Ready one that
//     somebody works on counts as Joining: its row will say so.
//  9. launch: need − have, for the oldest jobs of all pools first and for spares last, each on the fitting
//     node with the most free memory, never on one that is down, cordoned, full or in trouble; only on a
//     fresh look at Proxmox; after failures, a time-out in this very plan included, one trial at a time,
//     after growing waits.
//  10. spare: more than needed for a minute is given up: launches not yet asked for, Ready, cloned
//     but not ready, then Idle if GitHub agrees; what somebody works on already counts as going.
//     Never Joining, never Busy. Ready runners of an old template go at once.
//  11. strays: VMs of our range without a row are inspected.
//  12. ghosts: registrations of ours without row and VM are taken back, on a fresh look at GitHub.
//  13. look up: a queued job, or one in progress on no runner of ours, of which nothing was heard for long is
//     asked for singly, if a pool matches: GitHub's own runners have jobs too, and requests are few.
//  14. explain: every open job that nothing comes for has its reason.
package fleet
