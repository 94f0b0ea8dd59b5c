// Package projecttest_test holds tests of the project as a whole: what imports what, which modules the
// library requires, that the public API and the wire are those of the library that it replaces, and
// that no configuration field is ignored. There is no code here but tests.
package projecttest_test
