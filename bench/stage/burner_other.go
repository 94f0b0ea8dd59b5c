//go:build !linux

package stage

import "time"

// processorTime is not known here, as usage is not.
func processorTime(int) time.Duration { return 0 }

func threadTime() time.Duration { return 0 }
