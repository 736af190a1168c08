package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"time"
)

// A started program is a line of standard input.
type started struct {
	Command []string          `json:"command"`
	Env     map[string]string `json:"env"`
}

// A measurement is what it took from start to end.
type measurement struct {
	ExitCode         int    `json:"exitCode"`
	Stdout           string `json:"stdout"`
	Stderr           string `json:"stderr"`
	WallMicroseconds int64  `json:"wallMicroseconds"`
	// CPUMicroseconds is the user's and the system's, of the program and of the
	// children that it waited for.
	CPUMicroseconds int64 `json:"cpuMicroseconds"`
}

// runStopwatch starts programs as client-go starts plugins, one after the other.
func runStopwatch(args []string) error {
	if err := parseRequired(flag.NewFlagSet("stopwatch", flag.ExitOnError), args); err != nil {
		return err
	}
	return serve(func(wanted started) any { return measure(wanted) })
}

func measure(wanted started) measurement {
	// The search along the PATH is part of it.
	if err := os.Setenv("PATH", wanted.Env["PATH"]); err != nil {
		return measurement{ExitCode: -1, Stderr: err.Error()}
	}
	var stdout, stderr bytes.Buffer
	begin := time.Now()
	cmd := exec.Command(wanted.Command[0], wanted.Command[1:]...)
	for name, value := range wanted.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	wall := time.Since(begin)
	if cmd.ProcessState == nil {
		return measurement{ExitCode: -1, Stderr: err.Error()}
	}
	return measurement{
		ExitCode:         cmd.ProcessState.ExitCode(),
		Stdout:           stdout.String(),
		Stderr:           stderr.String(),
		WallMicroseconds: wall.Microseconds(),
		CPUMicroseconds:  (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Microseconds(),
	}
}
