package procgroup

// noReap is WNOWAIT of waitid(2).
const noReap = 0x1000000
