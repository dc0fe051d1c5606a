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

ALTER TABLE IF EXISTS ONLY public."Odd Table" DROP CONSTRAINT IF EXISTS "Odd Table_f_fkey";
DROP INDEX IF EXISTS public.low;
ALTER TABLE IF EXISTS ONLY public.revocation_authority_info DROP CONSTRAINT IF EXISTS revocation_authority_info_pkey;
ALTER TABLE IF EXISTS ONLY public.properties DROP CONSTRAINT IF EXISTS properties_pkey;
ALTER TABLE IF EXISTS ONLY public.nonces DROP CONSTRAINT IF EXISTS nonces_pkey;
ALTER TABLE IF EXISTS ONLY public.credentials DROP CONSTRAINT IF EXISTS credentials_pkey;
ALTER TABLE IF EXISTS ONLY public.certificates DROP CONSTRAINT IF EXISTS certificates_pkey;
ALTER TABLE IF EXISTS ONLY public.affiliations DROP CONSTRAINT IF EXISTS affiliations_name_key;
ALTER TABLE IF EXISTS ONLY public."Odd Table" DROP CONSTRAINT IF EXISTS "Odd Table_pkey";
ALTER TABLE IF EXISTS public."Odd Table" ALTER COLUMN a DROP DEFAULT;
DROP TABLE IF EXISTS public.users;
DROP TABLE IF EXISTS public.revocation_authority_info;
DROP TABLE IF EXISTS public.properties;
DROP TABLE IF EXISTS public.nonces;
DROP TABLE IF EXISTS public.credentials;
DROP TABLE IF EXISTS public.certificates;
DROP TABLE IF EXISTS public.affiliations;
DROP SEQUENCE IF EXISTS public."Odd Table_a_seq";
DROP TABLE IF EXISTS public."Odd Table";
SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: Odd Table; Type: TABLE; Schema: public; Owner: -
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

--
-- Name: Odd Table_a_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public."Odd Table_a_seq"
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

--
-- Name: Odd Table_a_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public."Odd Table_a_seq" OWNED BY public."Odd Table".a;

--
-- Name: Odd Table_e_seq; Type: SEQUENCE; Schema: public; Owner: -
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
-- Name: affiliations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.affiliations (
    name character varying(1024) NOT NULL,
    prekey character varying(1024),
    level integer DEFAULT 0
);

--
-- Name: certificates; Type: TABLE; Schema: public; Owner: -
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

--
-- Name: credentials; Type: TABLE; Schema: public; Owner: -
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

--
-- Name: nonces; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.nonces (
    val character varying(1024) NOT NULL,
    expiry timestamp without time zone,
    level integer DEFAULT 0
);

--
-- Name: properties; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.properties (
    property character varying(255) NOT NULL,
    value character varying(256)
);

--
-- Name: revocation_authority_info; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.revocation_authority_info (
    epoch integer NOT NULL,
    next_handle integer,
    lasthandle_in_pool integer,
    level integer DEFAULT 0
);

--
-- Name: users; Type: TABLE; Schema: public; Owner: -
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

--
-- Name: TABLE users; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.users IS 'it''s';

--
-- Name: Odd Table a; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public."Odd Table" ALTER COLUMN a SET DEFAULT nextval('public."Odd Table_a_seq"'::regclass);

--
-- Data for Name: Odd Table; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public."Odd Table" (a, b, c, d, e, f) FROM stdin;
\.

--
-- Data for Name: affiliations; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.affiliations (name, prekey, level) FROM stdin;
\.

--
-- Data for Name: certificates; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.certificates (id, serial_number, authority_key_identifier, ca_label, status, reason, expiry, revoked_at, pem, level) FROM stdin;
\.

--
-- Data for Name: credentials; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.credentials (id, revocation_handle, cred, ca_label, status, reason, expiry, revoked_at, level) FROM stdin;
\.

--
-- Data for Name: nonces; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.nonces (val, expiry, level) FROM stdin;
\.

--
-- Data for Name: properties; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.properties (property, value) FROM stdin;
identity.level	2
\.

--
-- Data for Name: revocation_authority_info; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.revocation_authority_info (epoch, next_handle, lasthandle_in_pool, level) FROM stdin;
\.

--
-- Data for Name: users; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.users (id, token, type, affiliation, attributes, state, max_enrollments, level, incorrect_password_attempts) FROM stdin;
a(b)	\\xff	client	org1	[{"name":"f(x)"}]	0	-1	2	0
\.

--
-- Name: Odd Table_a_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public."Odd Table_a_seq"', 1, false);

--
-- Name: Odd Table_e_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public."Odd Table_e_seq"', 1, false);

--
-- Name: Odd Table Odd Table_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public."Odd Table"
    ADD CONSTRAINT "Odd Table_pkey" PRIMARY KEY (a);

--
-- Name: affiliations affiliations_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.affiliations
    ADD CONSTRAINT affiliations_name_key UNIQUE (name);

--
-- Name: certificates certificates_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.certificates
    ADD CONSTRAINT certificates_pkey PRIMARY KEY (serial_number, authority_key_identifier);

--
-- Name: credentials credentials_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.credentials
    ADD CONSTRAINT credentials_pkey PRIMARY KEY (revocation_handle);

--
-- Name: nonces nonces_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.nonces
    ADD CONSTRAINT nonces_pkey PRIMARY KEY (val);

--
-- Name: properties properties_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.properties
    ADD CONSTRAINT properties_pkey PRIMARY KEY (property);

--
-- Name: revocation_authority_info revocation_authority_info_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revocation_authority_info
    ADD CONSTRAINT revocation_authority_info_pkey PRIMARY KEY (epoch);

--
-- Name: low; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX low ON public.users USING btree (lower((id)::text)) WHERE (state > 0);

--
-- Name: Odd Table Odd Table_f_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public."Odd Table"
    ADD CONSTRAINT "Odd Table_f_fkey" FOREIGN KEY (f) REFERENCES public."Odd Table"(a);

--
-- PostgreSQL database dump complete
--

