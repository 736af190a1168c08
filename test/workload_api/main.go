// Command workload_api is a program of a workload's as people write them: it
// has go-spiffe, and a Workload API at the address that it is told.
//
//	workload_api ADDRESS
//
// Each line on standard input is a command, a JSON array of strings, and is
// answered with one line of JSON on standard output. README.md has them all.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/status"
)

const (
	spiffeModule = "github.com/spiffe/go-spiffe/v2"
	// callTimeout bounds every command: none may be left without an answer.
	callTimeout = 20 * time.Second
)

type facts map[string]any

type command func(ctx context.Context, arguments []string) (facts, error)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: workload_api ADDRESS")
		os.Exit(2)
	}
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "workload_api:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	version, err := moduleVersion(spiffeModule)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(facts{"ready": true, "version": version}); err != nil {
		return err
	}
	commands := newProgram(address).commands()
	lines := json.NewDecoder(os.Stdin)
	for {
		var line []string
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("standard input must hold one JSON array of strings per line: %w", err)
		}
		if err := answers.Encode(answer(commands, line)); err != nil {
			return err
		}
	}
}

func answer(commands map[string]command, line []string) facts {
	if len(line) == 0 || commands[line[0]] == nil {
		return facts{"ok": false, "error": "no such command"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	learned, err := commands[line[0]](ctx, line[1:])
	if err != nil {
		return facts{"ok": false, "code": status.Code(err).String(), "error": err.Error()}
	}
	result := facts{"ok": true}
	maps.Copy(result, learned)
	return result
}

// moduleVersion names the release of a dependency that this binary was linked
// with.
func moduleVersion(path string) (string, error) {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("built without module support")
	}
	for _, dependency := range build.Deps {
		if dependency.Path == path {
			return dependency.Path + " " + dependency.Version, nil
		}
	}
	return "", fmt.Errorf("built without %s", path)
}
