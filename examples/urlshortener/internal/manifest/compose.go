package manifest

// Compose is a Compose file.
type Compose struct {
	Name     string                    `yaml:"name"`
	Program  ComposeService            `yaml:"x-program"` // an extension, merged into the services
	Services map[string]ComposeService `yaml:"services"`
	Networks map[string]struct{}       `yaml:"networks"`
}

// ComposeService is one service of it.
type ComposeService struct {
	User            string   `yaml:"user"`
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	Networks        []string `yaml:"networks"`
	Restart         string   `yaml:"restart"`
	StopGracePeriod string   `yaml:"stop_grace_period"`
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
		ReadOnly bool   `yaml:"read_only"`
	} `yaml:"volumes"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck struct {
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		Retries     int      `yaml:"retries"`
		StartPeriod string   `yaml:"start_period"`
	} `yaml:"healthcheck"`
}

// ReadCompose reads a Compose file.
func ReadCompose(raw []byte) (*Compose, error) {
	out := &Compose{}

	return out, strict(raw, out)
}
