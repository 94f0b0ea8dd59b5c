package procgroup_test

// words are those that not every system knows.
var words = map[string]func(){}
