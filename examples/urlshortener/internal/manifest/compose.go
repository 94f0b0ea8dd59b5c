package manifest

// Compose is a Compose file.
type Compose struct {
	Name string `yaml:"name"`
	// Program is an extension, which is merged into the services.
	Program  ComposeService            `yaml:"x-program"` //nolint:tagliatelle // as Compose spells it
	Services map[string]ComposeService `yaml:"services"`
	Networks map[string]struct{}       `yaml:"networks"`
}

// ComposeService is one service of it.
type ComposeService struct {
	User            string   `yaml:"user"`
	ReadOnly        bool     `yaml:"read_only"`    //nolint:tagliatelle // as Compose spells it
	CapDrop         []string `yaml:"cap_drop"`     //nolint:tagliatelle // as Compose spells it
	SecurityOpt     []string `yaml:"security_opt"` //nolint:tagliatelle // as Compose spells it
	Networks        []string `yaml:"networks"`
	Restart         string   `yaml:"restart"`
	StopGracePeriod string   `yaml:"stop_grace_period"` //nolint:tagliatelle // as Compose spells it
	Image           string   `yaml:"image"`
	Build           struct {
		Context    string            `yaml:"context"`
		Dockerfile string            `yaml:"dockerfile"`
		Args       map[string]string `yaml:"args"`
	} `yaml:"build"`
	Hostname    string   `yaml:"hostname"`
	Command     []string `yaml:"command"`
	Ports       []string `yaml:"ports"`
	Environment []string `yaml:"environment"`
	Volumes     []struct {
		Type     string `yaml:"type"`
		Source   string `yaml:"source"`
		Target   string `yaml:"target"`
		ReadOnly bool   `yaml:"read_only"` //nolint:tagliatelle // as Compose spells it
	} `yaml:"volumes"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"` //nolint:tagliatelle // as Compose spells it
	Healthcheck struct {
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		Retries     int      `yaml:"retries"`
		StartPeriod string   `yaml:"start_period"` //nolint:tagliatelle // as Compose spells it
	} `yaml:"healthcheck"`
}

// ReadCompose reads a Compose file.
func ReadCompose(raw []byte) (*Compose, error) {
	out := &Compose{}

	return out, strict(raw, out)
}
