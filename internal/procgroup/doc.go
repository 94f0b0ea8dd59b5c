// Package procgroup starts and ends processes, each in a process group of its own, and
// knows nothing of what they are for.
//
// A process that it starts ends with its parent, whatever ends that: on Linux the kernel
// sends SIGKILL when the thread ends that forked, which is why a [Starter] keeps that
// thread, and a [Guard] ends the whole group. When a process ends, for whatever reason,
// what is left of its group is killed before the process is reaped, so that no process id
// is signalled after it may belong to somebody else. A grandchild that left the group is
// out of reach.
package procgroup
