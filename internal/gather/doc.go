// Package gather puts together what a server writes piece by piece. An HTTP/2
// server writes frame by frame, and TLS makes a record and a system call of each;
// a [Conn] stands below TLS, takes the records, and writes in one call what has
// come together by the time that the writer runs.
//
// Writing happens behind the owner's back, so an error surfaces with a later write,
// and what was written last may still be on its way when Close returns. Both are
// so for a socket too, whose buffer is the kernel's.
package gather
