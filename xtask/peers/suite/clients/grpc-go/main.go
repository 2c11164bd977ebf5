// grpc-go as a client of the suite: tasks as lines of JSON on standard input, outcomes as lines on
// standard output. It builds with the grpc-go of Debian (golang-google-grpc-dev) and with newer ones.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

type settings struct {
	Connect            *bool   `json:"connect"`
	KeepaliveMs        *int64  `json:"keepalive_ms"`
	KeepaliveTimeoutMs *int64  `json:"keepalive_timeout_ms"`
	MaxSendBytes       *int    `json:"max_send_bytes"`
	MaxHeaderBytes     *uint32 `json:"max_header_bytes"`
}

type call struct {
	Connect      *bool             `json:"connect"`
	Kind         string            `json:"kind"`
	Metadata     map[string]string `json:"metadata"`
	DeadlineMs   *int64            `json:"deadline_ms"`
	Bytes        int               `json:"bytes"`
	Send         *int              `json:"send"`
	CannotEncode bool              `json:"cannot_encode"`
	WaitForReady bool              `json:"wait_for_ready"`
	UnreadMs     int64             `json:"unread_ms"`
}

type task struct {
	ID        uint64          `json:"id"`
	Channel   string          `json:"channel"`
	Addresses []string        `json:"addresses"`
	Config    json.RawMessage `json:"config"`
	Settings  settings        `json:"settings"`
	Path      string          `json:"path"`
	Call      call            `json:"call"`
}

type outcome struct {
	ID       uint64  `json:"id"`
	Code     int     `json:"code"`
	Message  string  `json:"message"`
	Details  string  `json:"details"`
	Messages int     `json:"messages"`
	TookMs   float64 `json:"took_ms"`
}

// codec takes messages as bytes; what is none cannot be encoded.
type codec struct{}

func (codec) Marshal(v interface{}) ([]byte, error) {
	if b, ok := v.(*[]byte); ok {
		return *b, nil
	}
	return nil, errors.New("this cannot be encoded")
}

func (codec) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (codec) Name() string { return "proto" }

var speaking sync.Mutex

func say(v interface{}) {
	speaking.Lock()
	defer speaking.Unlock()
	line, _ := json.Marshal(v)
	fmt.Printf("%s\n", line)
}

func open(t *task) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithInsecure(),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})),
	}
	if len(t.Config) > 0 && !bytes.Equal(t.Config, []byte("null")) {
		options = append(options, grpc.WithDefaultServiceConfig(string(t.Config)))
	}
	s := t.Settings
	if s.MaxSendBytes != nil {
		limit := grpc.MaxCallSendMsgSize(*s.MaxSendBytes)
		options = append(options, grpc.WithDefaultCallOptions(limit))
	}
	if s.MaxHeaderBytes != nil {
		options = append(options, grpc.WithMaxHeaderListSize(*s.MaxHeaderBytes))
	}
	if s.KeepaliveMs != nil {
		parameters := keepalive.ClientParameters{Time: time.Duration(*s.KeepaliveMs) * time.Millisecond}
		if s.KeepaliveTimeoutMs != nil {
			parameters.Timeout = time.Duration(*s.KeepaliveTimeoutMs) * time.Millisecond
		}
		options = append(options, grpc.WithKeepaliveParams(parameters))
	}
	if len(t.Addresses) == 1 {
		return grpc.Dial(t.Addresses[0], options...)
	}
	found := manual.NewBuilderWithScheme("suite")
	var state resolver.State
	for _, address := range t.Addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	found.InitialState(state)
	return grpc.Dial("suite:///servers", append(options, grpc.WithResolvers(found))...)
}

// ready waits until there is a connection, for at most ten seconds.
func ready(conn *grpc.ClientConn) {
	until, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(until, state) {
			return
		}
	}
}

// messages makes the call; how many messages came, and how it ended.
func messages(ctx context.Context, conn *grpc.ClientConn, t *task) (int, error) {
	c := t.Call
	message := bytes.Repeat([]byte("1"), c.Bytes)
	var first interface{} = &message
	if c.CannotEncode {
		first = struct{}{}
	}
	var answer []byte
	var options []grpc.CallOption
	if c.WaitForReady {
		options = append(options, grpc.WaitForReady(true))
	}
	if c.Kind == "unary" {
		if err := conn.Invoke(ctx, t.Path, first, &answer, options...); err != nil {
			return 0, err
		}
		return 1, nil
	}
	kind := &grpc.StreamDesc{ClientStreams: c.Kind == "client_stream", ServerStreams: c.Kind == "server_stream"}
	stream, err := conn.NewStream(ctx, kind, t.Path)
	if err != nil {
		return 0, err
	}
	if c.Kind == "client_stream" {
		count := 1
		if c.Send != nil {
			count = *c.Send
		}
		for n := 0; n < count; n++ {
			if stream.SendMsg(&message) != nil {
				break
			}
		}
		if c.CannotEncode {
			if err := stream.SendMsg(struct{}{}); err != nil && err != io.EOF {
				return 0, err
			}
		}
	} else if err := stream.SendMsg(first); err != nil && err != io.EOF {
		return 0, err
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	time.Sleep(time.Duration(c.UnreadMs) * time.Millisecond)
	for count := 0; ; count++ {
		err := stream.RecvMsg(&answer)
		if err == io.EOF {
			return count, nil
		} else if err != nil {
			return count, err
		} else if c.Kind == "client_stream" {
			return 1, nil
		}
	}
}

func run(conn *grpc.ClientConn, t *task) {
	connect := t.Settings.Connect
	if t.Call.Connect != nil {
		connect = t.Call.Connect
	}
	if connect == nil || *connect {
		ready(conn)
	}
	begun := time.Now()
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.New(t.Call.Metadata))
	cancel := func() {}
	if t.Call.DeadlineMs != nil {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*t.Call.DeadlineMs)*time.Millisecond)
	}
	defer cancel()
	count, err := messages(ctx, conn, t)
	took := float64(time.Since(begun).Microseconds()) / 1000
	ended := status.Convert(err)
	details := ""
	for _, detail := range ended.Proto().GetDetails() {
		details += detail.TypeUrl + string(detail.Value)
	}
	say(outcome{t.ID, int(ended.Code()), ended.Message(), details, count, took})
}

func main() {
	can := "deadline streams keepalive many unix send-limit header-limit retry previous pushback " +
		"throttling wait-for-ready service-config balancing message-limits transparent"
	say(map[string]interface{}{"client": "grpc-go", "version": grpc.Version, "can": strings.Fields(can)})
	var name string
	var conn *grpc.ClientConn
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		t := &task{}
		if err := json.Unmarshal(line, t); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if conn == nil || t.Channel != name {
			if conn != nil {
				conn.Close()
			}
			name = t.Channel
			if conn, err = open(t); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		go run(conn, t)
	}
}
