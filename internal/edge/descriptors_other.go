//go:build !unix

package edge

// NoDescriptors reports that an error says that this process, or the system, has no descriptor left: nobody knows here.
func NoDescriptors(error) bool { return false }

// Descriptors returns how many descriptors this process may have, and whether the system says so.
func Descriptors() (most uint64, known bool) { return 0, false }

// fleeting reports that an error says nothing of the listener: nobody knows here.
func fleeting(error) bool { return false }
