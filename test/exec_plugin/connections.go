package main

import (
	"net"
	"sync"

	"google.golang.org/protobuf/proto"
)

// connections is a listener that can also close what it has accepted.
type connections struct {
	net.Listener
	mu       sync.Mutex
	accepted []net.Conn
}

func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.accepted = append(c.accepted, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *connections) closeAccepted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.accepted {
		_ = conn.Close()
	}
	c.accepted = nil
}

func (c *connections) closeAll() {
	_ = c.Close()
	c.closeAccepted()
}

// misbehave is a server that speaks no HTTP/2.
func (c *connections) misbehave(fault string) {
	for {
		conn, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			// The client's preface, and whatever came with it.
			_, _ = conn.Read(make([]byte, 1<<16))
			switch fault {
			case faultNoHTTP2:
				_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
				_ = conn.Close()
			case faultHangUp:
				_ = conn.Close()
			}
		}()
	}
}

// garbageCodec reads as protocol buffers and writes what is none.
type garbageCodec struct{}

func (garbageCodec) Name() string { return "proto" }
func (garbageCodec) Unmarshal(data []byte, v any) error {
	return proto.Unmarshal(data, v.(proto.Message))
}

// Marshal gives field 1 a length that goes beyond the end.
func (garbageCodec) Marshal(any) ([]byte, error) { return []byte{0x0a, 0x7f, 0x01}, nil }
