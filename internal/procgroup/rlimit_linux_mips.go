//go:build linux && (mips || mipsle || mips64 || mips64le)

package procgroup

const (
	rlimitProcesses    = 8
	rlimitLockedMemory = 9
)
