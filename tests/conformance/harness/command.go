package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Result is what a command left behind.
type Result struct {
	Arguments []string
	Out       string
	Err       string
	Status    int
}

// Run calls a command of the server's binary against this server.
func (s *Server) Run(t *testing.T, arguments ...string) Result {
	t.Helper()
	return s.RunWith(t, "", arguments...)
}

// RunWith gives the command a standard input.
func (s *Server) RunWith(t *testing.T, input string, arguments ...string) Result {
	t.Helper()
	return Execute(t, s.Dir, nil, input, append(arguments, "-socketPath", s.Socket)...)
}

// Execute runs the binary with these arguments and no other.
func Execute(t *testing.T, dir string, environment []string, input string, arguments ...string) Result {
	t.Helper()
	return ExecuteBinary(t, Binary(), dir, environment, input, arguments...)
}

// ExecuteBinary runs another program of ours to its end.
func ExecuteBinary(t *testing.T, binary, dir string, environment []string, input string, arguments ...string) Result {
	t.Helper()
	command := exec.Command(binary, arguments...)
	command.Dir, command.Stdin = dir, strings.NewReader(input)
	command.Env = append(os.Environ(), environment...)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{arguments, out.String(), problems.String(), command.ProcessState.ExitCode()}
}

func (r Result) String() string {
	return fmt.Sprintf("%s\nexit status %d\nstdout:\n%s\nstderr:\n%s", strings.Join(r.Arguments, " "), r.Status, r.Out, r.Err)
}

// Succeeds checks that the command did its work and printed all these texts.
func (r Result) Succeeds(t *testing.T, texts ...string) Result {
	t.Helper()
	if r.Status != 0 {
		t.Fatalf("failed: %v", r)
	}
	for _, text := range texts {
		if !strings.Contains(r.Out, text) {
			t.Errorf("%q is missing: %v", text, r)
		}
	}
	return r
}

// Fails checks the exit status and that all these texts stand in what was printed for people.
func (r Result) Fails(t *testing.T, status int, texts ...string) Result {
	t.Helper()
	if r.Status != status {
		t.Fatalf("not exit status %d: %v", status, r)
	}
	for _, text := range texts {
		if !strings.Contains(r.Err+r.Out, text) {
			t.Errorf("%q is missing: %v", text, r)
		}
	}
	return r
}

// JSON reads the one line that a command with -output json prints.
func (r Result) JSON(t *testing.T) any {
	t.Helper()
	if r.Status != 0 {
		t.Fatalf("failed: %v", r)
	}
	if lines := strings.Count(r.Out, "\n"); lines != 1 || !strings.HasSuffix(r.Out, "\n") {
		t.Errorf("not one line: %v", r)
	}
	var value any
	if err := json.Unmarshal([]byte(r.Out), &value); err != nil {
		t.Fatalf("no JSON (%v): %v", err, r)
	}
	return value
}

// At follows names and numbers into a JSON value, as jq does; what is not there is nil.
func At(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := value.(map[string]any)
			value = object[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}
