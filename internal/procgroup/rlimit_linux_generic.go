//go:build linux && !mips && !mipsle && !mips64 && !mips64le

package procgroup

const (
	rlimitProcesses    = 6
	rlimitLockedMemory = 8
)
