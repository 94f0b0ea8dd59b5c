package connectplugin

// Rlimit names a resource limit of a process, as ulimit and limits.conf do.
type Rlimit string

// The resource limits.
const (
	RlimitCPU          Rlimit = "cpu"     // processor time, in seconds
	RlimitFileSize     Rlimit = "fsize"   // size of a file that it writes, in bytes
	RlimitData         Rlimit = "data"    // size of its data segment, in bytes
	RlimitStack        Rlimit = "stack"   // size of its first stack, in bytes
	RlimitCore         Rlimit = "core"    // size of a core file, in bytes
	RlimitOpenFiles    Rlimit = "nofile"  // number of open files
	RlimitAddressSpace Rlimit = "as"      // size of its address space, in bytes
	RlimitProcesses    Rlimit = "nproc"   // processes and threads of its user
	RlimitLockedMemory Rlimit = "memlock" // memory that it may lock, in bytes
)
