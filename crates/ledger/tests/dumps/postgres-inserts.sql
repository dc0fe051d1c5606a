--
-- PostgreSQL database dump
--

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: Odd Table; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public."Odd Table" (
    a integer NOT NULL,
    b timestamp with time zone DEFAULT now(),
    c numeric(10,2),
    d character varying(3)[],
    e integer NOT NULL,
    f integer,
    CONSTRAINT "Odd Table_check" CHECK (((a > 0) AND ((c IS NULL) OR (c = ANY (ARRAY[(1)::numeric, (2)::numeric, (3)::numeric])))))
);

ALTER TABLE public."Odd Table" OWNER TO ca;

--
-- Name: Odd Table_a_seq; Type: SEQUENCE; Schema: public; Owner: ca
--

CREATE SEQUENCE public."Odd Table_a_seq"
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER TABLE public."Odd Table_a_seq" OWNER TO ca;

--
-- Name: Odd Table_a_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: ca
--

ALTER SEQUENCE public."Odd Table_a_seq" OWNED BY public."Odd Table".a;

--
-- Name: Odd Table_e_seq; Type: SEQUENCE; Schema: public; Owner: ca
--

ALTER TABLE public."Odd Table" ALTER COLUMN e ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public."Odd Table_e_seq"
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

--
-- Name: affiliations; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public.affiliations (
    name character varying(1024) NOT NULL,
    prekey character varying(1024),
    level integer DEFAULT 0
);

ALTER TABLE public.affiliations OWNER TO ca;

--
-- Name: certificates; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public.certificates (
    id character varying(255),
    serial_number bytea NOT NULL,
    authority_key_identifier bytea NOT NULL,
    ca_label bytea,
    status bytea NOT NULL,
    reason integer,
    expiry timestamp without time zone,
    revoked_at timestamp without time zone,
    pem bytea NOT NULL,
    level integer DEFAULT 0
);

ALTER TABLE public.certificates OWNER TO ca;

--
-- Name: credentials; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public.credentials (
    id character varying(255),
    revocation_handle bytea NOT NULL,
    cred bytea NOT NULL,
    ca_label bytea,
    status bytea NOT NULL,
    reason integer,
    expiry timestamp without time zone,
    revoked_at timestamp without time zone,
    level integer DEFAULT 0
);

ALTER TABLE public.credentials OWNER TO ca;

--
-- Name: nonces; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public.nonces (
    val character varying(1024) NOT NULL,
    expiry timestamp without time zone,
    level integer DEFAULT 0
);

ALTER TABLE public.nonces OWNER TO ca;

--
-- Name: properties; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public.properties (
    property character varying(255) NOT NULL,
    value character varying(256)
);

ALTER TABLE public.properties OWNER TO ca;

--
-- Name: revocation_authority_info; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public.revocation_authority_info (
    epoch integer NOT NULL,
    next_handle integer,
    lasthandle_in_pool integer,
    level integer DEFAULT 0
);

ALTER TABLE public.revocation_authority_info OWNER TO ca;

--
-- Name: users; Type: TABLE; Schema: public; Owner: ca
--

CREATE TABLE public.users (
    id character varying(255),
    token bytea,
    type character varying(256),
    affiliation character varying(1024),
    attributes text,
    state integer,
    max_enrollments integer,
    level integer DEFAULT 0,
    incorrect_password_attempts integer DEFAULT 0
);

ALTER TABLE ONLY public.users REPLICA IDENTITY FULL;

ALTER TABLE public.users OWNER TO ca;

--
-- Name: TABLE users; Type: COMMENT; Schema: public; Owner: ca
--

COMMENT ON TABLE public.users IS 'it''s';

--
-- Name: Odd Table a; Type: DEFAULT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public."Odd Table" ALTER COLUMN a SET DEFAULT nextval('public."Odd Table_a_seq"'::regclass);

--
-- Data for Name: Odd Table; Type: TABLE DATA; Schema: public; Owner: ca
--

--
-- Data for Name: affiliations; Type: TABLE DATA; Schema: public; Owner: ca
--

--
-- Data for Name: certificates; Type: TABLE DATA; Schema: public; Owner: ca
--

--
-- Data for Name: credentials; Type: TABLE DATA; Schema: public; Owner: ca
--

--
-- Data for Name: nonces; Type: TABLE DATA; Schema: public; Owner: ca
--

--
-- Data for Name: properties; Type: TABLE DATA; Schema: public; Owner: ca
--

INSERT INTO public.properties (property, value) VALUES ('identity.level', '2');

--
-- Data for Name: revocation_authority_info; Type: TABLE DATA; Schema: public; Owner: ca
--

--
-- Data for Name: users; Type: TABLE DATA; Schema: public; Owner: ca
--

INSERT INTO public.users (id, token, type, affiliation, attributes, state, max_enrollments, level, incorrect_password_attempts) VALUES ('a(b)', '\xff', 'client', 'org1', '[{"name":"f(x)"}]', 0, -1, 2, 0);

--
-- Name: Odd Table_a_seq; Type: SEQUENCE SET; Schema: public; Owner: ca
--

SELECT pg_catalog.setval('public."Odd Table_a_seq"', 1, false);

--
-- Name: Odd Table_e_seq; Type: SEQUENCE SET; Schema: public; Owner: ca
--

SELECT pg_catalog.setval('public."Odd Table_e_seq"', 1, false);

--
-- Name: Odd Table Odd Table_pkey; Type: CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public."Odd Table"
    ADD CONSTRAINT "Odd Table_pkey" PRIMARY KEY (a);

--
-- Name: affiliations affiliations_name_key; Type: CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public.affiliations
    ADD CONSTRAINT affiliations_name_key UNIQUE (name);

--
-- Name: certificates certificates_pkey; Type: CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public.certificates
    ADD CONSTRAINT certificates_pkey PRIMARY KEY (serial_number, authority_key_identifier);

--
-- Name: credentials credentials_pkey; Type: CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_pkey PRIMARY KEY (revocation_handle);

--
-- Name: nonces nonces_pkey; Type: CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public.nonces
    ADD CONSTRAINT nonces_pkey PRIMARY KEY (val);

--
-- Name: properties properties_pkey; Type: CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public.properties
    ADD CONSTRAINT properties_pkey PRIMARY KEY (property);

--
-- Name: revocation_authority_info revocation_authority_info_pkey; Type: CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public.revocation_authority_info
    ADD CONSTRAINT revocation_authority_info_pkey PRIMARY KEY (epoch);

--
-- Name: low; Type: INDEX; Schema: public; Owner: ca
--

CREATE INDEX low ON public.users USING btree (lower((id)::text)) WHERE (state > 0);

--
-- Name: Odd Table Odd Table_f_fkey; Type: FK CONSTRAINT; Schema: public; Owner: ca
--

ALTER TABLE ONLY public."Odd Table"
    ADD CONSTRAINT "Odd Table_f_fkey" FOREIGN KEY (f) REFERENCES public."Odd Table"(a);

--
-- Name: COLUMN certificates.id; Type: ACL; Schema: public; Owner: ca
--

GRANT SELECT(id),UPDATE(id) ON TABLE public.certificates TO auditor;

--
-- Name: TABLE users; Type: ACL; Schema: public; Owner: ca
--

GRANT SELECT ON TABLE public.users TO auditor;

--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: public; Owner: ca
--

ALTER DEFAULT PRIVILEGES FOR ROLE ca IN SCHEMA public GRANT SELECT ON TABLES  TO auditor;

--
-- PostgreSQL database dump complete
--

